"""Scores, and the file `evaluation.json` that keeps them."""

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
from satmip_jax.runtime.files import FileContentError, read_json, write_atomically


def is_fraction(metric: str) -> bool:
    """Whether a metric is stored as a fraction and shown as a percentage: accuracy and every F1."""
    return metric == "accuracy" or metric.endswith("_f1")


class ResultsError(SatmipError, ValueError):
    """An invalid score or file of scores; the message names it."""


@dataclass(frozen=True)
class Score:
    """One score: a metric of one protocol on one kind of features.

    Attributes:
        dataset: name of the data set.
        split: classified examples.
        model: source of the features, such as "satmip vit" or the name of a baseline.
        features: "image", "metadata" or "both"; "metadata (Time)" where only these fields were
            shown to the encoder.
        protocol: name in `PROTOCOLS`, such as "knn5"; "knn5 blocked 1deg" for spatially blocked
            scores, "knn5 (bank a, tune b)" where labels were not those of the train split alone.
        metric: "accuracy", "macro_f1", ...
        value: the score; accuracy and every F1 are fractions, 0 to 1.
        n: number of classified examples.
        low: lower end of the 95 % confidence interval, or None.
        high: its upper end, or None.

    Raises:
        ResultsError: a field has a wrong type, a value is not finite or not a fraction (81.2 for
            0.812).

    Example:
        >>> from satmip_jax.evaluation.results import Score
        >>> Score("eurosat", "val", "colour", "image", "knn5", "accuracy", 0.738, 4050).key
        ('eurosat', 'val', 'colour', 'image', 'knn5', 'accuracy')
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
                raise ResultsError(
                    f"{name} of {self.metric} is {number}: expected a fraction, 0 to 1"
                )
        if self.n < 0:
            raise ResultsError(f"n is {self.n}: expected a number of examples")

    @property
    def key(self) -> tuple[str, ...]:
        """All fields that identify the score; a file has one score per key."""
        return (*self.group, self.metric)

    @property
    def group(self) -> tuple[str, ...]:
        """The key without the metric: scores that a table shows in one line."""
        return self.dataset, self.split, self.model, self.features, self.protocol


def read_scores(path: str | os.PathLike[str]) -> list[Score]:
    """Return the scores in an `evaluation.json`, in order.

    Args:
        path: of the file.

    Raises:
        FileNotFoundError: there is no such file.
        ResultsError: the file is not a list of scores; names the file and the first invalid row.
    """
    try:
        entries = read_json(path)
    except FileContentError as error:
        raise ResultsError(f"{error}: delete the file and evaluate again") from None
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
    """Merge scores into an `evaluation.json`, atomically, and return all of its scores.

    A score replaces the one with the same key; others are appended.

    Args:
        path: of the file; it and its folder are created if necessary.
        rows: the new scores.

    Raises:
        ResultsError: the file exists and is not a list of scores; it is left as it is.
        OSError: the file cannot be written.

    Example:
        >>> from satmip_jax.evaluation.results import Score, read_scores, write_scores
        >>> row = Score("eurosat", "val", "satmip vit", "image", "knn5", "accuracy", 0.912, 4050)
        >>> write_scores("runs/a/evaluation.json", [row]) == [row]
        True
        >>> read_scores("runs/a/evaluation.json") == [row]
        True
    """
    path = Path(path)
    merged = {row.key: row for row in (read_scores(path) if path.exists() else [])}
    merged |= {row.key: row for row in rows}
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps([asdict(row) for row in merged.values()], indent=1, allow_nan=False)
    write_atomically(path, text + "\n")
    return list(merged.values())


def print_scores(rows: Sequence[Score], console: Console | None = None) -> None:
    """Print a table: one line per group, one column per metric, fractions as percent.

    Data set, split and model stand in the title if they are the same in all lines.

    Args:
        rows: the scores.
        console: to print on; the terminal by default.
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
        first = next(iter(scores.values()))
        examples = ", ".join(dict.fromkeys(str(row.n) for row in scores.values()))
        cells = [_shown(scores[metric]) if metric in scores else "" for metric in metrics]
        table.add_row(*(escape(getattr(first, name)) for name in shown), examples, *cells)
    (console or Console()).print(table)


def _shown(row: Score) -> str:
    return f"{100 * row.value:.1f}" if is_fraction(row.metric) else f"{row.value:.4g}"
