"""Rows of scores as tables: per metric a line for each run, features and model, by protocol."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from satmip_jax.evaluation.features import KINDS
from satmip_jax.evaluation.results import Score, is_fraction
from satmip_jax.report.published import LABEL, Published, published

MAX_LINES = 200


@dataclass(frozen=True)
class Cell:
    """A score as it is shown; `best` where it is the highest of the lines it is compared with."""

    value: str
    interval: str = ""
    best: bool = False


@dataclass(frozen=True)
class ScoreLine:
    """One line; `cells` has an entry for each protocol of its table, None where empty."""

    run: str
    features: str
    model: str
    cells: Sequence[Cell | None]


@dataclass(frozen=True)
class ScoreTable:
    """One metric on one split of one data set.

    Attributes:
        dataset: its name and the split's.
        protocols: (name, number of examples scored), in the order of the columns.
        left_out: lines beyond `MAX_LINES`.
    """

    dataset: str
    metric: str
    protocols: Sequence[tuple[str, str]]
    lines: Sequence[ScoreLine]
    left_out: int


@dataclass(frozen=True)
class Scores:
    """The tables, and what the paper says of the same data sets.

    Attributes:
        runs: whether lines of several runs are compared.
        published: (data set, the paper's scores on it).
    """

    tables: Sequence[ScoreTable]
    runs: bool
    published: Sequence[tuple[str, Sequence[Published]]]
    label: str = LABEL

    @property
    def intervals(self) -> bool:
        """Whether there are confidence intervals."""
        return any(cell.interval for cell in self._cells())

    @property
    def compared(self) -> bool:
        """Whether there are lines to be better than."""
        return any(cell.best for cell in self._cells())

    def _cells(self) -> list[Cell]:
        lines = [line for table in self.tables for line in table.lines]
        return [cell for line in lines for cell in line.cells if cell]


def scores(runs: Sequence[tuple[str, Iterable[Score]]]) -> Scores:
    """The tables of (name of a run, its rows).

    Example:
        >>> row = Score("eurosat", "val", "satmips", "image", "knn5", "accuracy", 0.821, 4050)
        >>> scores([("a", [row])]).tables[0].lines[0].cells[0].value
        '82.1'
    """
    groups: dict[tuple[str, str], list[tuple[str, Score]]] = {}
    datasets: dict[str, None] = {}
    for name, rows in runs:
        for row in rows:
            groups.setdefault((f"{row.dataset} {row.split}", row.metric), []).append((name, row))
            datasets[row.dataset] = None
    order = list(dict.fromkeys(dataset for dataset, _ in groups))
    return Scores(
        [_table(*key, groups[key]) for key in sorted(groups, key=lambda key: order.index(key[0]))],
        runs=len(runs) > 1,
        published=[(name, known) for name in datasets if (known := published(name))],
    )


def _table(dataset: str, metric: str, rows: Sequence[tuple[str, Score]]) -> ScoreTable:
    lines: dict[tuple[str, str, str], dict[str, Score]] = {}
    protocols: dict[str, dict[int, None]] = {}  # -> numbers of examples
    best: dict[tuple[str, str], list[float]] = {}  # of (features, protocol)
    for name, row in rows:
        lines.setdefault((name, row.features, row.model), {})[row.protocol] = row
        protocols.setdefault(row.protocol, {})[row.n] = None
        best.setdefault((row.features, row.protocol), []).append(row.value)

    def cell(row: Score | None) -> Cell | None:
        if row is None:
            return None
        rivals = best[row.features, row.protocol]
        highest = is_fraction(metric) and len(rivals) > 1 and row.value == max(rivals)
        return Cell(shown(metric, row.value), interval(metric, row.low, row.high), highest)

    keys = sorted(lines, key=lambda key: (_rank(key[1]), key[1]))  # stable
    return ScoreTable(
        dataset,
        metric,
        [(name, ", ".join(f"{n:,}" for n in counts)) for name, counts in protocols.items()],
        [ScoreLine(*key, [cell(lines[key].get(p)) for p in protocols]) for key in keys[:MAX_LINES]],
        max(len(keys) - MAX_LINES, 0),
    )


def shown(metric: str, value: float) -> str:
    """A score as text: fractions as percent with one digit."""
    return f"{100 * value:.1f}" if is_fraction(metric) else f"{value:.4g}"


def interval(metric: str, low: float | None, high: float | None) -> str:
    """A confidence interval as text, "" where there is none."""
    if low is None or high is None:
        return ""
    return f"{shown(metric, low)}–{shown(metric, high)}"


def _rank(features: str) -> int:
    """Image first, then metadata, then both, whatever fields they had."""
    kind = features.split(" ")[0]
    return KINDS.index(kind) if kind in KINDS else len(KINDS)
