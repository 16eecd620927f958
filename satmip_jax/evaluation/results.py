"""Scores, and the file `evaluation.json` that keeps them."""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from satmip_jax.errors import SatmipError
from satmip_jax.runtime.files import (
    FileContentError,
    one_at_a_time,
    read_json,
    write_atomically,
)
from satmip_jax.runtime.paths import AnyPath, as_path, make_folder

log = logging.getLogger(__name__)


def is_fraction(metric: str) -> bool:
    """Whether a metric is stored as a fraction and shown as a percentage.

    These are accuracy, also that of the worst group, precision and every F1.
    """
    return metric in ("accuracy", "precision") or metric.endswith("_f1") or is_worst(metric)


def is_worst(metric: str) -> bool:
    """Whether a metric is the accuracy of the worst group: "worst_class", "worst_region", ..."""
    return metric.startswith("worst_")


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
        metric: "accuracy", "macro_f1", "worst_class", "worst_region", ...
        value: the score; accuracy and every F1 are fractions, 0 to 1.
        n: number of classified examples; of a worst group, those in it.
        low: lower end of the 95 % confidence interval, or None.
        high: its upper end, or None.
        data: fingerprint of the data's schema.json, or None where it is unknown.
        step: of the scored checkpoint, or None for other features and where it is unknown.
        planned: number of steps of the complete training, or None.
        majority: the same metric if every answer is the most frequent class of the bank, or None.
        note: what a reader of the score has to know, or None.
        by_class: the same metric of the examples of each class, as (name, value); of a worst group
            the accuracy of each group; or None.

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
    data: str | None = None
    step: int | None = None
    planned: int | None = None
    majority: float | None = None
    note: str | None = None
    by_class: tuple[tuple[str, float], ...] | None = None

    def __post_init__(self) -> None:
        kinds: dict[str, tuple[type, ...]] = dict.fromkeys(("n", "step", "planned"), (int,))
        kinds |= dict.fromkeys(_NUMBERS, (int, float))
        if self.by_class is not None:
            self._check_classes(self.by_class)
        for name in (field.name for field in fields(self) if field.name != "by_class"):
            value, expected = getattr(self, name), kinds.get(name, (str,))
            if name in _OPTIONAL and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, expected):
                raise ResultsError(f"{name} is {value!r}: expected {expected[-1].__name__}")
        for name in _NUMBERS:
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
        if self.step is not None and self.step < 0:
            raise ResultsError(f"step is {self.step}: expected a number of steps")

    def _check_classes(self, by_class: object) -> None:
        """Raise `ResultsError` for anything but names of classes with fractions."""
        pairs = by_class if isinstance(by_class, tuple) else (None,)
        for pair in pairs:
            if not isinstance(pair, tuple) or [type(part) for part in pair] != [str, float]:
                raise ResultsError(f"by_class has {pair!r:.80}: expected (name, value)")
            if not 0 <= pair[1] <= 1:
                raise ResultsError(f"by_class has {pair[1]}: expected a fraction, 0 to 1")

    @property
    def key(self) -> tuple[str, ...]:
        """All names that identify the score on one data set."""
        return (*self.group, self.metric)

    @property
    def identity(self) -> tuple[str, ...]:
        """The key and the fingerprint of the data; a file has one score per identity."""
        return (*self.key, self.data or "")

    @property
    def group(self) -> tuple[str, ...]:
        """The key without the metric: scores that a table shows in one line."""
        return self.dataset, self.split, self.model, self.features, self.protocol

    @property
    def source(self) -> str:
        """The model and its step, such as "satmips mu/8, step 4 of 8 (unfinished)"."""
        if self.step is None:
            return self.model
        if self.planned is not None and self.step < self.planned:
            return f"{self.model}, step {self.step} of {self.planned} (unfinished)"
        return f"{self.model}, step {self.step}"


_NUMBERS = ("value", "low", "high", "majority")
_OPTIONAL = {"low", "high", "data", "step", "planned", "majority", "note", "by_class"}


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
        if not isinstance(entry, dict) or set(entry) | _OPTIONAL != names:
            raise ResultsError(
                f"{path}, row {i} is not a row of {', '.join(sorted(names - _OPTIONAL))}"
            )
        try:
            rows.append(Score(**entry | {"by_class": _pairs(entry.get("by_class"))}))
        except ResultsError as error:
            raise ResultsError(f"{path}, row {i}: {error}") from None
    return rows


def _pairs(entry: object) -> Any:
    """Return lists of a JSON file as tuples; anything else as it is, for `Score` to refuse."""
    if not isinstance(entry, list):
        return entry
    return tuple(
        tuple(float(x) if type(x) is int else x for x in pair) if isinstance(pair, list) else pair
        for pair in entry
    )


def write_scores(path: str | os.PathLike[str], rows: Iterable[Score]) -> list[Score]:
    """Merge scores into an `evaluation.json`, atomically, and return all of its scores.

    A score replaces the one of the same names on the same data; others are appended. Scores of the
    same model at another step are removed, and a warning says how many: a table is of one
    checkpoint. Scores of other data stay; tables show them apart.

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
    path, new = as_path(path), list(rows)
    make_folder(path.parent)
    with one_at_a_time(path.parent):  # evaluations that end together keep the scores of each other
        saved = read_scores(path) if path.exists() else []
        merged = {row.identity: row for row in _without_stale(path, saved, new)}
        merged |= {row.identity: row for row in new}
        text = json.dumps([asdict(row) for row in merged.values()], indent=1, allow_nan=False)
        write_atomically(path, text + "\n")
    return list(merged.values())


def _without_stale(path: AnyPath, saved: Sequence[Score], new: Sequence[Score]) -> list[Score]:
    """Return the saved scores without those that new ones of another origin replace."""

    def origin(row: Score) -> tuple[str | None, ...]:
        return row.dataset, row.split, row.model, row.data

    names = {row.key for row in new if row.data is not None}
    steps = {origin(row): row.step for row in new if row.step is not None}
    kept = [row for row in saved if row.data is not None or row.key not in names]
    if replaced := len(saved) - len(kept):
        log.warning("%s: %d scores of unknown data and step are replaced", path, replaced)
    current = [row for row in kept if steps.get(origin(row), row.step) == row.step]
    if removed := [row for row in kept if row not in current]:
        log.warning(
            "%s: %d scores of an earlier or later checkpoint are replaced or removed (step %s); "
            "the new ones are of step %s",
            path,
            len(removed),
            ", ".join(dict.fromkeys(str(row.step) for row in removed)),
            ", ".join(map(str, dict.fromkeys(steps.values()))),
        )
    return current


def print_scores(rows: Sequence[Score], console: Console | None = None) -> None:
    """Print a table: one line per group, one column per metric, fractions as percent.

    Data set, split and model stand in the title if they are the same in all lines. The last lines
    are the scores of always answering the bank's most frequent class. Worst groups, if all scores
    are of one model, and notes stand below.

    Args:
        rows: the scores.
        console: to print on; the terminal by default.
    """
    worst = [row for row in rows if is_worst(row.metric)]
    rows = [row for row in rows if not is_worst(row.metric)]
    metrics = list(dict.fromkeys(row.metric for row in rows))
    several = len({row.data for row in rows}) > 1
    names = ("dataset", *["data"] * several, "split", "model", "features", "protocol")
    cells_of = {row: dict(zip(names, _names(row, several), strict=True)) for row in rows}
    values = {name: list(dict.fromkeys(c[name] for c in cells_of.values())) for name in names}
    same = [name for name in names[:-2] if len(values[name]) == 1]
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
        groups.setdefault(_names(row, several=True), {})[row.metric] = row
    for scores in groups.values():
        first = next(iter(scores.values()))
        examples = ", ".join(dict.fromkeys(str(row.n) for row in scores.values()))
        cells = [
            format_score(metric, scores[metric].value) if metric in scores else ""
            for metric in metrics
        ]
        table.add_row(*(escape(cells_of[first][name]) for name in shown), examples, *cells)
    for line in _majority_lines(rows):
        first = next(iter(line.values()))
        names_of = cells_of[first] | {
            "model": "",
            "features": "majority class",
            "protocol": first.protocol.partition(" ")[2],
        }
        cells = [
            format_score(metric, line[metric].majority) if metric in line else ""
            for metric in metrics
        ]
        table.add_row(*(escape(names_of[name]) for name in shown), str(first.n), *cells)
    console = console or Console()
    console.print(table)
    _print_classes([row for row in rows if row.by_class], console)
    _print_worst(worst, console)
    for note in dict.fromkeys(row.note for row in [*rows, *worst] if row.note):
        console.print(note, markup=False, highlight=False)


def worst_group_name(row: Score) -> str:
    """Return the name of the group whose accuracy is the score; "" where it is not known.

    Example:
        >>> from satmip_jax.evaluation.results import Score, worst_group_name
        >>> names = "eurosat", "val", "satmip vit", "image", "knn5", "worst_class"
        >>> worst_group_name(Score(*names, 0.25, 40, by_class=(("Forest", 0.5), ("River", 0.25))))
        'River'
    """
    return next((name for name, value in row.by_class or () if value == row.value), "")


def _print_worst(rows: Sequence[Score], console: Console) -> None:
    """Print a table with a line per features and protocol, if all scores are of one model."""
    if len({row.source for row in rows}) != 1:
        return
    metrics = list(dict.fromkeys(row.metric for row in rows))
    lines: dict[tuple[str, ...], dict[str, Score]] = {}
    for row in rows:
        lines.setdefault(_names(row, several=True), {})[row.metric] = row
    console.print("accuracy of the worst class and region, %:")
    table = Table()
    for name in ("features", "protocol", *(metric.replace("_", " ") for metric in metrics)):
        table.add_column(name, overflow="fold")
    for scores in lines.values():
        cells = [_worst_cell(scores[metric]) if metric in scores else "" for metric in metrics]
        first = next(iter(scores.values()))
        table.add_row(*map(escape, (first.features, first.protocol, *cells)))
    console.print(table)


def _worst_cell(row: Score) -> str:
    return f"{format_score(row.metric, row.value)} {worst_group_name(row) or '?'} (n {row.n})"


def _print_classes(rows: Sequence[Score], console: Console) -> None:
    """Print a table per protocol with a line per class and a column per kind of features."""
    several = len({row.source for row in rows}) > 1
    tables: dict[tuple[str, str], list[Score]] = {}
    for row in rows:
        tables.setdefault((row.protocol, row.metric), []).append(row)
    for (protocol, metric), columns in tables.items():
        # a title would be wrapped to the width of the table
        console.print(escape(f"{protocol}: {metric.replace('_', ' ')} by class, %:"))
        table = Table()
        table.add_column("class", overflow="fold")
        for row in columns:
            names = [row.source] * several + [row.features]
            table.add_column(escape("\n".join(names)), justify="right", overflow="fold")
        cells = [dict(row.by_class or ()) for row in columns]
        for name in dict.fromkeys(name for of_row in cells for name in of_row):
            values = [format_score(metric, of_row.get(name)) for of_row in cells]
            table.add_row(escape(name), *values)
        console.print(table)


def _names(row: Score, several: bool) -> tuple[str, ...]:
    """Return the names of a line of the table, with the data where they are not the same."""
    data = [row.data or "unknown"] if several else []
    return row.dataset, *data, row.split, row.source, row.features, row.protocol


def _majority_lines(rows: Sequence[Score]) -> list[dict[str, Score]]:
    """Return, by metric, a score of each group of examples that has a majority class."""
    lines: dict[tuple[str | int | None, ...], dict[str, Score]] = {}
    for row in rows:
        if row.majority is not None:
            options = row.protocol.partition(" ")[2]  # such as "blocked 1deg (bank a)"
            examples = (row.dataset, row.data, row.split, options, row.n)
            lines.setdefault(examples, {}).setdefault(row.metric, row)
    return list(lines.values())


def format_score(metric: str, value: float | None) -> str:
    """Format a score; fractions become percentages with one decimal, None becomes "".

    Example:
        >>> from satmip_jax.evaluation.results import format_score
        >>> format_score("macro_f1", 0.8214)
        '82.1'
    """
    if value is None:
        return ""
    return f"{100 * value:.1f}" if is_fraction(metric) else f"{value:.4g}"
