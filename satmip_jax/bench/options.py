"""Options that several subcommands of `satmip bench` share, and the output of measurements."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from satmip_jax.runtime.commands import LocalPath

if TYPE_CHECKING:
    from satmip_jax.bench.timing import Measurement

out_option = click.option(
    "--out", type=LocalPath(dir_okay=False), help="File to append the results to, as JSON Lines."
)
devices_option = click.option(
    "--devices",
    type=click.IntRange(1),
    help="Number of virtual CPU devices.  [default: the devices of this machine]",
)


def rounds_option(default: int, least: int = 1) -> Any:
    """Return the option --rounds."""
    note = "" if least else " 0 measures memory only."
    return click.option(
        "--rounds",
        type=click.IntRange(least),
        default=default,
        show_default=True,
        help=f"Rounds of timing; each round times all variants in turn.{note}",
    )


def parse_numbers(
    context: click.Context | None, parameter: click.Parameter | None, value: str
) -> list[int]:
    """Parse positive numbers joined by commas."""
    del context, parameter
    parts = [part.strip() for part in value.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise click.BadParameter(f"{value!r} is not a list of positive numbers, such as 64,256")
    return [int(part) for part in parts]


def write(measurements: Iterable[Measurement], out: str | None) -> list[Measurement]:
    """Print the table of measurements, and append them to the file `out`."""
    from rich.console import Console

    from satmip_jax.bench.timing import write_measurements

    return write_measurements(measurements, Path(out) if out else None, Console())
