"""Tables of scores: one per metric, with a line per run, features and model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from satmip_jax.evaluation.features import KINDS
from satmip_jax.evaluation.results import Score, format_score, is_fraction
from satmip_jax.report.published import LABEL, Published, published

MAX_LINES = 200


@dataclass(frozen=True)
class Cell:
    """A formatted score.

    Attributes:
        value: the score.
        interval: its confidence interval; "" if there is none.
        best: whether it is the highest among the lines with the same features.
    """

    value: str
    interval: str = ""
    best: bool = False


@dataclass(frozen=True)
class ScoreLine:
    """A line of a table.

    Attributes:
        run: name of the run.
        features: kind of features, such as "image".
        model: model that computed the features, with the step of its checkpoint.
        cells: one entry per protocol of the table; None if there is no score.
    """

    run: str
    features: str
    model: str
    cells: Sequence[Cell | None]


@dataclass(frozen=True)
class ScoreTable:
    """Scores of one metric on one split of one data set.

    Attributes:
        dataset: names of the data set and the split.
        metric: name of the metric.
        protocols: (name, number of examples scored), in the order of the columns.
        lines: the lines.
        left_out: number of lines beyond `MAX_LINES`.
        notes: what a reader of the scores has to know.
    """

    dataset: str
    metric: str
    protocols: Sequence[tuple[str, str]]
    lines: Sequence[ScoreLine]
    left_out: int
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Scores:
    """The tables, and published scores on the same data sets.

    Attributes:
        tables: the tables.
        runs: whether several runs are compared.
        published: (data set, published scores on it).
        label: source of the published scores.
    """

    tables: Sequence[ScoreTable]
    runs: bool
    published: Sequence[tuple[str, Sequence[Published]]]
    label: str = LABEL

    @property
    def intervals(self) -> bool:
        """Whether any score has a confidence interval."""
        return any(cell.interval for cell in self._cells())

    @property
    def compared(self) -> bool:
        """Whether any score is marked as the best."""
        return any(cell.best for cell in self._cells())

    def _cells(self) -> list[Cell]:
        lines = [line for table in self.tables for line in table.lines]
        return [cell for line in lines for cell in line.cells if cell]


def scores(runs: Sequence[tuple[str, Iterable[Score]]]) -> Scores:
    """Arrange scores in tables.

    Args:
        runs: (name of a run, its scores).

    Example:
        >>> from satmip_jax.evaluation.results import Score
        >>> from satmip_jax.report.scores import scores
        >>> row = Score("eurosat", "val", "satmips", "image", "knn5", "accuracy", 0.821, 4050)
        >>> scores([("a", [row])]).tables[0].lines[0].cells[0].value
        '82.1'
    """
    groups: dict[tuple[str, str], list[tuple[str, Score]]] = {}
    datasets: dict[str, None] = {}
    named = [(name, row) for name, rows in runs for row in rows]
    data: dict[tuple[str, str], set[str | None]] = {}
    for _, row in named:
        data.setdefault((row.dataset, row.split), set()).add(row.data)
    for name, row in named:
        title = f"{row.dataset} {row.split}"
        if len(data[row.dataset, row.split]) > 1:  # other data of the same name have other tables
            title += f" (data {row.data or 'unknown'})"
        groups.setdefault((title, row.metric), []).append((name, row))
        datasets[row.dataset] = None
    order = list(dict.fromkeys(dataset for dataset, _ in groups))
    return Scores(
        [_table(*key, groups[key]) for key in sorted(groups, key=lambda key: order.index(key[0]))],
        runs=len(runs) > 1,
        published=[(name, entries) for name in datasets if (entries := published(name))],
    )


def _table(dataset: str, metric: str, rows: Sequence[tuple[str, Score]]) -> ScoreTable:
    lines: dict[tuple[str, str, str], dict[str, Score]] = {}
    protocols: dict[str, dict[int, None]] = {}  # -> numbers of examples
    values: dict[tuple[str, str], list[float]] = {}  # by (features, protocol)
    majorities: dict[str, dict[str, None]] = {}  # by protocol
    for name, row in rows:
        lines.setdefault((name, row.features, row.source), {})[row.protocol] = row
        protocols.setdefault(row.protocol, {})[row.n] = None
        values.setdefault((row.features, row.protocol), []).append(row.value)
        if row.majority is not None:
            majorities.setdefault(row.protocol, {})[format_score(metric, row.majority)] = None

    def cell(row: Score | None) -> Cell | None:
        if row is None:
            return None
        compared = values[row.features, row.protocol]
        highest = is_fraction(metric) and len(compared) > 1 and row.value == max(compared)
        return Cell(
            format_score(metric, row.value), format_interval(metric, row.low, row.high), highest
        )

    keys = sorted(lines, key=lambda key: (_rank(key[1]), key[1]))  # stable
    shown = [ScoreLine(*key, [cell(lines[key].get(p)) for p in protocols]) for key in keys]
    majority = ScoreLine(
        "",
        "majority class",
        "",
        [Cell(", ".join(majorities[p])) if p in majorities else None for p in protocols],
    )
    return ScoreTable(
        dataset,
        metric,
        [(name, ", ".join(f"{n:,}" for n in counts)) for name, counts in protocols.items()],
        [*shown[:MAX_LINES], *[majority] * bool(majorities)],
        max(len(keys) - MAX_LINES, 0),
        list(dict.fromkeys(row.note for _, row in rows if row.note)),
    )


def format_interval(metric: str, low: float | None, high: float | None) -> str:
    """Format a confidence interval; "" if there is none."""
    if low is None or high is None:
        return ""
    return f"{format_score(metric, low)}–{format_score(metric, high)}"


def _rank(features: str) -> int:
    """Return the position of a kind of features: image, metadata, both, others."""
    kind = features.split(" ")[0]
    return KINDS.index(kind) if kind in KINDS else len(KINDS)
