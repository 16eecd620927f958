"""Rows of scores, and the `evaluation.json` that keeps them."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from satmip_jax.errors import SatmipError


def is_fraction(metric: str) -> bool:
    """Whether a metric is stored as a fraction and shown as a percentage: accuracy and every F1."""
    return metric == "accuracy" or metric.endswith("_f1")


class ResultsError(SatmipError, ValueError):
    """A row or a file of scores that cannot be right; the message names it."""


@dataclass(frozen=True)
class Score:
    """One score; what it is of is its key.

    Attributes:
      dataset, split: what was scored.
      model: what made the features, such as "satmip vit" or the name of a baseline.
      features: "image", "metadata" or "both".
      protocol: how it was scored, such as "knn5"; "knn5 (bank a, tune b)" where labels were not
        those of the train split alone.
      metric: "accuracy", "macro_f1", ...
      value: the score; accuracy and F1 are fractions, 0 to 1.
      n: number of examples scored.
      low, high: 95 % confidence interval of the value, where there is one.

    Raises:
      ResultsError: a field of a wrong type, a value that is not finite, 81.2 for 0.812.
    """

    dataset: str
    split: str
    model: str
    features: str
    protocol: str
    metric: str
    value: float
    n: int
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        for name in (field.name for field in fields(self)):
            kinds = {"value": (int, float), "low": (int, float), "high": (int, float), "n": (int,)}
            value, expected = getattr(self, name), kinds.get(name, (str,))
            if name in ("low", "high") and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, expected):
                raise ResultsError(f"{name} is {value!r}: expected {expected[-1].__name__}")
        for name in ("value", "low", "high"):
            number: float | None = getattr(self, name)
            if number is None:
                continue
            if not math.isfinite(number):
                raise ResultsError(f"{name} of {self.metric} is {number}: expected a finite number")
            if is_fraction(self.metric) and not 0 <= number <= 1:
                raise ResultsError(f"{name} of {self.metric} is {number}: a fraction, 0 to 1")
        if self.n < 0:
            raise ResultsError(f"n is {self.n}: expected a number of examples")

    @property
    def key(self) -> tuple[str, ...]:
        """What the score is of; a file holds one row a key."""
        return (*self.group, self.metric)

    @property
    def group(self) -> tuple[str, ...]:
        """The key without the metric: rows that a table shows side by side."""
        return self.dataset, self.split, self.model, self.features, self.protocol


def read_scores(path: str | os.PathLike[str]) -> list[Score]:
    """The rows of an `evaluation.json`, in order.

    Raises:
      FileNotFoundError: no such file.
      ResultsError: not a list of rows; names the file and the first bad row.
    """
    try:
        entries = json.loads(Path(path).read_bytes())
    except (ValueError, RecursionError) as error:  # JSON and UTF-8 errors are ValueErrors
        raise ResultsError(f"{path} is not JSON ({error}): delete it and evaluate again") from None
    if not isinstance(entries, list):
        raise ResultsError(f"{path} holds a {type(entries).__name__}: expected a list of rows")
    names, rows = {field.name for field in fields(Score)}, []
    for i, entry in enumerate(entries):
        if not isinstance(entry, dict) or set(entry) | {"low", "high"} != names:
            raise ResultsError(f"{path}, row {i} is not a row of {', '.join(sorted(names))}")
        try:
            rows.append(Score(**entry))
        except ResultsError as error:
            raise ResultsError(f"{path}, row {i}: {error}") from None
    return rows


def write_scores(path: str | os.PathLike[str], rows: Iterable[Score]) -> list[Score]:
    """Merge rows into an `evaluation.json`, at once or not at all; return all of its rows.

    A row takes the place of the one with the same key; others are appended. Folders are made.

    Example:
      >>> write_scores("runs/a/evaluation.json", [Score("eurosat", "val", "satmip vit", "image",
      ...     "knn5", "accuracy", 0.912, 4050)])
    """
    path = Path(path)
    merged = {row.key: row for row in (read_scores(path) if path.exists() else [])}
    merged |= {row.key: row for row in rows}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    text = json.dumps([asdict(row) for row in merged.values()], indent=1, allow_nan=False)
    try:
        partial.write_text(text + "\n", encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return list(merged.values())


def print_scores(rows: Sequence[Score], console: Console | None = None) -> None:
    """A table of one line a group, a column for each metric; fractions as percent.

    What is the same in all lines is said once, above them.
    """
    metrics = list(dict.fromkeys(row.metric for row in rows))
    names = ("dataset", "split", "model", "features", "protocol")
    values = {name: list(dict.fromkeys(getattr(row, name) for row in rows)) for name in names}
    same = [name for name in names[:3] if len(values[name]) == 1]
    shown = [name for name in names if name not in same]
    title = ", ".join(f"{name} {escape(values[name][0])}" for name in same)
    table = Table(title=title or None, title_justify="left")
    for name in shown:
        table.add_column(name, overflow="fold")
    table.add_column("n", justify="right")
    for metric in metrics:
        unit = " %" if is_fraction(metric) else ""
        table.add_column(f"{metric.replace('_', ' ')}{unit}", justify="right")
    groups: dict[tuple[str, ...], dict[str, Score]] = {}
    for row in rows:
        groups.setdefault(row.group, {})[row.metric] = row
    for scores in groups.values():
        some = next(iter(scores.values()))
        examples = ", ".join(dict.fromkeys(str(row.n) for row in scores.values()))
        cells = [_shown(scores[metric]) if metric in scores else "" for metric in metrics]
        table.add_row(*(escape(getattr(some, name)) for name in shown), examples, *cells)
    (console or Console()).print(table)


def _shown(row: Score) -> str:
    return f"{100 * row.value:.1f}" if is_fraction(row.metric) else f"{row.value:.4g}"
