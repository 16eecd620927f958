"""Reference of the command line: what `--help` prints, as Markdown."""

from __future__ import annotations

import re

import click

from satmip_jax.cli import cli

Record = tuple[str, str]  # names and meaning of an option
WIDTH = 100


def commands(names: str) -> str:
    """Return a section per command.

    Args:
        names: of commands, separated by spaces.
    """
    found = [cli.commands[name] for name in names.split()]
    return "\n\n".join(
        _section(command, f"satmip {command.name}", _records(command)) for command in found
    )


def group(name: str) -> str:
    """Return a section per subcommand, below what all of them share.

    Args:
        name: of a group of commands, such as "prepare".
    """
    parent = cli.commands[name]
    assert isinstance(parent, click.Group)
    context = click.Context(parent, info_name=f"satmip {name}")
    children = [parent.get_command(context, child) for child in parent.list_commands(context)]
    records = {child.name: _records(child) for child in children if child is not None}
    shared = [
        one for one in next(iter(records.values())) if all(one in r for r in records.values())
    ]
    text = f"## satmip {name}\n\n{_prose(parent.help)}"
    if shared:
        text += f"\n\nOptions of every subcommand:\n\n{_table(shared)}"
    for child in children:
        if child is not None:
            own = [record for record in records[child.name] if record not in shared]
            text += f"\n\n{_section(child, f'satmip {name} {child.name}', own, level=3)}"
    return text


def _section(command: click.Command, path: str, records: list[Record], level: int = 2) -> str:
    usage = " ".join(command.collect_usage_pieces(click.Context(command, info_name=path)))
    text = f"{'#' * level} {path}\n\n{_prose(command.help)}\n\n```text\n{path} {usage}\n```\n"
    if records:
        text += f"\n{_table(records)}\n"
    return f"{text}\n{_prose(command.epilog)}" if command.epilog else text


def _records(command: click.Command) -> list[Record]:
    """Return the options, but for --help, and the arguments that are described."""
    context = click.Context(command, info_name="", max_content_width=WIDTH)
    found = (one.get_help_record(context) for one in command.params)
    return [record for record in found if record is not None and record[1]]


def _table(records: list[Record]) -> str:
    rows = [f"| `{names}` | {_escaped(meaning)} |" for names, meaning in records]
    return "\n".join(["| option | meaning |", "|---|---|", *rows])


def _escaped(text: str) -> str:
    """Return text in which code stays code, and nothing else is markup."""
    parts = re.split(r"(`[^`]*`)", " ".join(text.split()))
    parts[::2] = [
        re.sub(r"([*_\[\]|#])", r"\\\1", part).replace("<", "&lt;") for part in parts[::2]
    ]
    return "".join(parts)


def _prose(text: str | None) -> str:
    paragraphs = (text or "").strip().split("\n\n")
    return "\n\n".join(_escaped(paragraph) for paragraph in paragraphs)
