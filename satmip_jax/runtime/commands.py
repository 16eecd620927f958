"""Parts of the command line that several commands share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from satmip_jax.errors import InterruptedCommandError
from satmip_jax.runtime.options import Option
from satmip_jax.runtime.paths import as_path, is_remote


@contextmanager
def interruption_explained(message: str) -> Iterator[None]:
    """Raise `InterruptedCommandError` with this message for Ctrl-C in the block.

    Click would print "Aborted!" and end with status 1.

    Args:
        message: What is kept, and what to do.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise InterruptedCommandError(message) from None


class LocalPath(click.Path):
    """A path of a local file or folder; a URL is refused before the command starts."""

    def convert(
        self,
        value: str | os.PathLike[str],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Any:
        """Return the value as `click.Path` does, unless it is a URL."""
        if is_remote(value):
            self.fail(f"{os.fspath(value)} is a URL: give a path on a local disk", param, ctx)
        return super().convert(value, param, ctx)


class PathOrUrl(click.Path):
    """A local path, checked as by `click.Path`, or a URL of a bucket, whose access is not checked.

    A URL of another kind raises `PathError` before the command starts.
    """

    def convert(
        self,
        value: str | os.PathLike[str],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Any:
        """Return the value as `click.Path` does, or the URL."""
        if not is_remote(value):
            return super().convert(value, param, ctx)
        as_path(value)
        return os.fspath(value)


config_option = click.option(
    "--config",
    type=LocalPath(),
    required=True,
    metavar="FILE[:ARG]",
    help="Config, such as configs/fmow.py:s16.",
)


class InterruptibleGroup(click.Group):
    """A group that reports Ctrl-C in subcommands that do not explain it themselves."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the subcommand."""
        with interruption_explained("interrupted: give the same command again"):
            return super().invoke(ctx)


class RegistryGroup(click.Group):
    """A group with one subcommand per name of a registry, built when it is used.

    Args:
        names: The registry.
        kind: What a name stands for, in messages.
        build: Name -> its command.
        **attributes: Of `click.Group`.
    """

    def __init__(
        self,
        *,
        names: Iterable[str],
        kind: str,
        build: Callable[[str], click.Command],
        **attributes: Any,
    ) -> None:
        super().__init__(**attributes)
        self.names, self.kind, self.build = names, kind, build

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, in the order of the registry."""
        return list(self.names)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Build the command of a name; None for an unknown one."""
        return self.build(cmd_name) if cmd_name in self.names else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command of the arguments, or list the names."""
        if args[0] not in self.names and not args[0].startswith("-"):
            ctx.fail(f"unknown {self.kind} {args[0]!r}: choose one of {', '.join(self.names)}")
        return super().resolve_command(ctx, args)


def flag(option: Option) -> click.Option:
    """Return the flag of a declared option; its value is None if it is not given."""
    kind: Any = str
    if option.choices:
        kind = click.Choice(option.choices)
    elif Path in option.types:
        kind = LocalPath()
    else:
        kind = next((kind for kind in (bool, int, float) if kind in option.types), str)
    shown = "" if option.default in (None, "") else f"  [default: {option.default}]"
    name = f"{option.flag}/--no-{option.flag[2:]}" if kind is bool else option.flag
    return click.Option([name], type=kind, default=None, help=f"{option.help}{shown}")
