"""Timing of alternatives in turn, and the table and JSON Lines of the measurements."""

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
        bench: name of the benchmark.
        variant: the alternative that was measured.
        metric: name of the metric.
        value: the value, the median over the rounds.
        unit: unit of the value.
        low: smallest value over the rounds; None for a single value.
        high: largest value over the rounds; None for a single value.
        rounds: number of rounds.
        facts: parameters of the measurement, such as {"rows": 4096}; keys of the line of JSON.

    Raises:
        ValueError: a fact has the name of another attribute.
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
            raise ValueError(f"facts must not be named {', '.join(sorted(taken))}")


def time_in_turn(functions: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Time functions in turn, round by round, so that machine noise affects all alike.

    Each function runs once before, untimed. A call ends when its arrays are ready.

    Args:
        functions: name -> function to time.
        rounds: timed calls per function.

    Returns:
        Name -> seconds of each call.

    Example:
        >>> from satmip_jax.bench.timing import time_in_turn
        >>> seconds = time_in_turn({"sum": lambda: jnp.arange(8).sum()}, rounds=3)
        >>> len(seconds["sum"])
        3
    """
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    turns = [(name, False) for name in functions]
    turns += [(name, True) for _ in range(rounds) for name in functions]
    for name, timed in tqdm(turns, desc="timing", unit=" turns", leave=False):
        start = time.perf_counter()
        jax.block_until_ready(functions[name]())
        if timed:
            seconds[name].append(time.perf_counter() - start)
    return seconds


def over_rounds(values: Sequence[float]) -> dict[str, Any]:
    """Return the fields of a `Measurement` that summarize several rounds.

    Example:
        >>> from satmip_jax.bench.timing import over_rounds
        >>> over_rounds([3.0, 1.0, 2.0])
        {'value': 2.0, 'low': 1.0, 'high': 3.0, 'rounds': 3}
    """
    return {
        "value": statistics.median(values),
        "low": min(values),
        "high": max(values),
        "rounds": len(values),
    }


def write_measurements(
    measurements: Iterable[Measurement], path: Path | None, console: Console
) -> list[Measurement]:
    """Append measurements to a JSON Lines file, with device and versions, and print a table.

    A generator's measurements are written one by one: an interrupted benchmark keeps its lines,
    and prints a table of them.

    Args:
        measurements: the measurements, or a generator that measures.
        path: file to append to; None writes no file.
        console: where to print the table.

    Returns:
        All measurements.
    """
    environment = {
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "jax": jax.__version__,
        "python": platform.python_version(),
        "satmip_jax": satmip_jax.__version__,
    }
    done: list[Measurement] = []
    try:
        for measurement in measurements:
            done.append(measurement)
            if path is not None:
                row = asdict(measurement)
                facts = row.pop("facts")
                with path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row | facts | environment) + "\n")
    finally:
        console.print(_table(done, environment))
    return done


def _table(measurements: Sequence[Measurement], environment: Mapping[str, Any]) -> Table:
    """Build the table; facts that all measurements share go into its title."""
    names = list(dict.fromkeys(name for m in measurements for name in m.facts))
    values = {name: {str(m.facts[name]) for m in measurements if name in m.facts} for name in names}
    varying = [name for name in names if len(values[name]) > 1]
    shared = {name: next(iter(values[name])) for name in names if name not in varying}
    title = ", ".join(f"{name} {value}" for name, value in {**environment, **shared}.items())
    table = Table(title=title, box=None)
    for name in ("variant", *varying, "metric"):
        table.add_column(name, overflow="fold")
    for name in ("median", "min to max", "unit"):
        table.add_column(name, justify="left" if name == "unit" else "right", no_wrap=True)
    previous = None
    for m in measurements:
        key = (m.variant, *(str(m.facts.get(name, "")) for name in varying))
        span = "" if m.low is None or m.high is None else f"{m.low:.4g} to {m.high:.4g}"
        cells = key if key != previous else ("",) * len(key)  # not repeated
        table.add_row(*cells, m.metric, f"{m.value:.4g}", span, m.unit)
        previous = key
    return table
