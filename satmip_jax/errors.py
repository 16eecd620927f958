"""The base of all errors meant for users: what went wrong, the value, and what to do next."""

INTERRUPTED = 130  # exit status of a run that was asked to stop and has saved, as after Ctrl-C


class SatmipError(Exception):
    """An error that a user can fix; the `satmip` command prints its message without a traceback.

    Subclasses live beside the code that raises them, and also inherit the closest built-in
    exception, so that `except ValueError` keeps working.

    Attributes:
        exit_code: exit status of the command, 1 to 255.
    """

    exit_code: int = 1


class InterruptedCommandError(SatmipError):
    """Ctrl-C; the message says what is kept and what to do."""

    exit_code = INTERRUPTED


class ConfigError(SatmipError, ValueError):
    """A configuration that cannot work; the message says what to change."""
