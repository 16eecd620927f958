"""Log messages on the terminal, beside progress bars.

Every module logs to `logging.getLogger(__name__)`, so all messages of the package pass through the
logger "satmip_jax". The `satmip` command shows them by `setup_logging`. In a program of your own
call `setup_logging` once too, or configure the logger "satmip_jax" like any other; otherwise Python
shows warnings and errors only.

In a run of several processes only process 0 shows messages. What concerns a single process (its
data, its worker processes) is logged with `extra=ALL_PROCESSES` and shown wherever it happens, with
the number of the process, and so are errors of other libraries.
"""

from __future__ import annotations

import logging
import sys

from tqdm import tqdm

LOGGER = "satmip_jax"
LEVELS = ("debug", "info", "warning", "error")
ALL_PROCESSES = {"all_processes": True}  # as `extra` of a message: show it on every process

# Messages of orbax (through absl) that are routine, or that come with an exception which
# `checkpoints` reports in one line. They are shown at level "debug".
ROUTINE = (
    "CheckpointManagerOptions.read_only=True",
    "Given directory is read only=",
    "_SignalingThread.run() raised an exception",
    "Handler Commit operations or the Commit callback",
    "Save Finalize thread",
    "Failed to write metadata=",
)


def setup_logging(level: str = "info") -> None:
    """Show the package's messages from `level` on, and warnings of other libraries, on stderr.

    Calling it again replaces the level.

    Args:
        level: "debug", "info", "warning" or "error"; upper case will do.

    Raises:
        ValueError: unknown level.

    Example:
        >>> import logging
        >>> from satmip_jax.runtime.console import setup_logging
        >>> setup_logging("warning")
        >>> logging.getLogger("satmip_jax").isEnabledFor(logging.INFO)
        False
    """
    if level.lower() not in LEVELS:
        raise ValueError(f"log level {level!r}: use one of {', '.join(LEVELS)}")
    root = logging.getLogger()
    for handler in root.handlers[:]:
        if isinstance(handler, ConsoleHandler):
            root.removeHandler(handler)
    root.addHandler(ConsoleHandler(debug=level.lower() == "debug"))
    logging.getLogger(LOGGER).setLevel(level.upper())
    logging.getLogger("absl").setLevel(logging.WARNING)


def process_index() -> int:
    """Return the number of this process in the run; 0 as long as it has not joined others."""
    jax = sys.modules.get("jax")  # not imported here: `satmip --help` does without
    distributed = getattr(jax, "distributed", None)  # absent while jax is being imported
    if jax is None or distributed is None or not distributed.is_initialized():
        return 0  # asking JAX now would start the devices too early
    return int(jax.process_index())


class ConsoleHandler(logging.Handler):
    """Writes lines to stderr without breaking progress bars."""

    def __init__(self, *, debug: bool = False) -> None:
        super().__init__()
        self.setFormatter(ConsoleFormatter())
        self.addFilter(_concerns_process)
        if not debug:
            self.addFilter(_not_routine)

    def emit(self, record: logging.LogRecord) -> None:
        """Write one message."""
        try:
            tqdm.write(self.format(record), file=sys.stderr)
        except Exception:
            self.handleError(record)


class ConsoleFormatter(logging.Formatter):
    """The message, after its level and process where these matter.

    An information of this package is the message alone; a line of another library names it.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the message with its prefixes."""
        prefix = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        if not _ours(record):
            prefix += f"{record.name}: "
        if process := process_index():
            prefix = f"process {process}: {prefix}"
        return prefix + record.message


def _concerns_process(record: logging.LogRecord) -> bool:
    if getattr(record, "all_processes", False) or process_index() == 0:
        return True
    return record.levelno >= logging.ERROR and not _ours(record)


def _ours(record: logging.LogRecord) -> bool:
    return record.name.partition(".")[0] == LOGGER


def _not_routine(record: logging.LogRecord) -> bool:
    return record.name != "absl" or not any(part in record.getMessage() for part in ROUTINE)
