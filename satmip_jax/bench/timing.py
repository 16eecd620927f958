"""Timing in turn, and the lines and the table that come of it."""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

import satmip_jax


@dataclass(frozen=True)
class Measurement:
    """One number of a benchmark.

    Attributes:
        bench, variant, metric, unit: what was measured, of what, in what.
        value: the median, where there were several rounds.
        low, high: the least and the greatest of the rounds.
        rounds: how many there were.
        facts: what it depends on, such as {"rows": 4096}; beside the other names on its line.

    Raises:
        ValueError: a fact has the name of one of the others.
    """

    bench: str
    variant: str
    metric: str
    value: float
    unit: str
    low: float | None = None
    high: float | None = None
    rounds: int = 1
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if taken := self.facts.keys() & {f.name for f in fields(self)}:
            raise ValueError(f"facts named as measurements are: {', '.join(sorted(taken))}")


def in_turn(functions: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each function, `rounds` times round all of them: a slow minute hits all alike.

    Each runs once before, uncounted. What they return is waited for.
    """
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    turns = [(name, False) for name in functions]
    turns += [(name, True) for _ in range(rounds) for name in functions]
    for name, counts in tqdm(turns, desc="timing", unit=" turns", leave=False):
        start = time.perf_counter()
        jax.block_until_ready(functions[name]())
        if counts:
            seconds[name].append(time.perf_counter() - start)
    return seconds


def spread(values: Sequence[float]) -> dict[str, Any]:
    """The fields of a `Measurement` that several rounds give."""
    return {
        "value": statistics.median(values),
        "low": min(values),
        "high": max(values),
        "rounds": len(values),
    }


def write(
    measurements: Iterable[Measurement], path: Path | None, console: Console
) -> list[Measurement]:
    """Append each to a JSON Lines file, with device and versions, and print a table of all.

    Measurements that are made as they are asked for are written at once: of a long benchmark that
    is stopped the lines are there, and the table of them.
    """
    machine = {
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "jax": jax.__version__,
        "python": platform.python_version(),
        "satmip_jax": satmip_jax.__version__,
    }
    found: list[Measurement] = []
    try:
        for m in measurements:
            found.append(m)
            if path is not None:
                row = asdict(m)
                facts = row.pop("facts")
                with path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row | facts | machine) + "\n")
    finally:
        console.print(_table(found, machine))
    return found


def _table(found: Sequence[Measurement], machine: Mapping[str, Any]) -> Table:
    """What all have in common is said in the title, once."""
    names = list(dict.fromkeys(name for m in found for name in m.facts))
    values = {name: {str(m.facts[name]) for m in found if name in m.facts} for name in names}
    varying = [name for name in names if len(values[name]) > 1]
    same = {name: next(iter(values[name])) for name in names if name not in varying}
    title = ", ".join(f"{name} {value}" for name, value in {**machine, **same}.items())
    table = Table(title=title, box=None)
    for name in ("variant", *varying, "metric"):
        table.add_column(name, overflow="fold")
    for name in ("median", "lowest to highest", "unit"):
        table.add_column(name, justify="left" if name == "unit" else "right", no_wrap=True)
    before = None
    for m in found:
        what = (m.variant, *(str(m.facts.get(name, "")) for name in varying))
        span = "" if m.low is None or m.high is None else f"{m.low:.4g} to {m.high:.4g}"
        shown = what if what != before else ("",) * len(what)  # said once
        table.add_row(*shown, m.metric, f"{m.value:.4g}", span, m.unit)
        before = what
    return table
