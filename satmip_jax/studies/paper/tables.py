"""The tables of the paper, with its numbers beside ours."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from satmip_jax.report.published import (
    BIMODAL,
    CONVERGENCE,
    COST,
    FIELDS,
    FMOW,
    MEAN_TRANSFER,
    METADATA,
    canonical_name,
)
from satmip_jax.report.published import (
    TRANSFER as TRANSFER_SCORES,
)
from satmip_jax.studies.paper.claims import NAMES
from satmip_jax.studies.paper.scores import (
    HOME,
    LEAK_FREE_KINDS,
    TRANSFER,
    MissingError,
    PaperScores,
    Quantity,
)

METHODS = tuple(NAMES)  # in the order of the published tuples
LENGTHS = ("eighth", "quarter", "half", "full")


@dataclass(frozen=True)
class Cell:
    """A score of ours and the paper's.

    Attributes:
        values: one per seed, in the unit of the table; empty if it was not measured.
        published: of the paper; None if it has none.
    """

    values: tuple[float, ...] = ()
    published: float | None = None

    @property
    def mean(self) -> float | None:
        """Mean over the seeds."""
        return statistics.fmean(self.values) if self.values else None

    @property
    def deviation(self) -> float | None:
        """Sample standard deviation over the seeds."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None


@dataclass(frozen=True)
class PaperTable:
    """One table of the paper.

    Attributes:
        name: of its files.
        title: heading.
        columns: headings of the columns.
        lines: (label, cells) of each line.
        unit: "percent" for macro F1, "ratio" for costs relative to SimCLR.
        note: what a reader has to know.
    """

    name: str
    title: str
    columns: Sequence[str]
    lines: Sequence[tuple[str, Sequence[Cell]]]
    unit: Literal["percent", "ratio"] = "percent"
    note: str = ""

    @property
    def measured(self) -> bool:
        """Whether any cell has a value of ours."""
        return any(cell.values for _, cells in self.lines for cell in cells)

    def format(self, cell: Cell) -> str:
        """Return ours with its deviation, and the paper's in brackets."""
        digits = 1 if self.unit == "percent" else 2
        text = "" if cell.mean is None else f"{cell.mean:.{digits}f}"
        if cell.deviation is not None:
            text += f" ± {cell.deviation:.{digits}f}"
        if cell.published is not None:
            text += f" ({cell.published:.{digits}f})"
        return text.strip() or "-"

    def markdown(self) -> str:
        """Return the table in Markdown."""
        head = ["", *self.columns]
        rows = [[label, *map(self.format, cells)] for label, cells in self.lines]
        lines = [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]
        note = f"\n\n{self.note}" if self.note else ""
        return f"## {self.title}\n\n" + "\n".join(lines) + note + "\n"

    def csv(self) -> str:
        """Return one cell per line: row, column, mean, deviation, seeds, published."""
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["row", "column", "mean", "std", "seeds", "published"])
        for label, cells in self.lines:
            for column, cell in zip(self.columns, cells, strict=True):
                numbers = (cell.mean, cell.deviation, len(cell.values), cell.published)
                writer.writerow([label, column, *("" if x is None else x for x in numbers)])
        return file.getvalue()

    def record(self) -> dict[str, Any]:
        """Return the table as plain JSON, its cells as text."""
        return {
            "name": self.name,
            "title": self.title,
            "head": list(self.columns),
            "lines": [[label, *map(self.format, cells)] for label, cells in self.lines],
            "note": self.note,
        }


def paper_tables(scores: PaperScores) -> list[PaperTable]:
    """Return the tables of which something was measured."""
    makers: tuple[Callable[[PaperScores], PaperTable], ...] = (
        methods_table,
        convergence_table,
        efficiency_table,
        bimodal_table,
        metadata_table,
        fields_table,
    )
    return [table for make in makers if (table := make(scores)).measured]


def cell(scores: PaperScores, quantity: Quantity, published: float | None = None) -> Cell:
    """Return a quantity in the unit of its table, and the paper's number."""
    scale = 1.0 if quantity.cost else 100.0
    values: tuple[float, ...] = ()
    with suppress(MissingError):
        values = tuple(scale * value for value in scores.values(quantity).values())
    return Cell(values, published)


def methods_table(scores: PaperScores) -> PaperTable:
    """Image features of each method on all data sets."""
    sets = [canonical_name(name) for name in scores.transfers]
    lines = []
    for method in (*METHODS, "untrained", "colour"):
        home, mean = FMOW.get(method, (None,))[0], MEAN_TRANSFER.get(method)
        cells = [cell(scores, Quantity(method), home)]
        for name in sets:
            published = dict(zip(METHODS, TRANSFER_SCORES.get(name, ()), strict=False))
            cells.append(cell(scores, Quantity(method, name), published.get(method)))
        if sets:
            cells.append(cell(scores, Quantity(method, TRANSFER), mean))
        lines.append((NAMES.get(method, method), cells))
    columns = [scores.home, *sets, *(["mean of transfer"] if sets else [])]
    note = ""
    if sets and (missing := set(TRANSFER_SCORES) - set(sets)):
        note = f"The paper's mean is over six sets; not given here: {', '.join(sorted(missing))}."
    elif not sets:
        note = "No transfer set was given."
    return PaperTable("methods", "Methods, image features", columns, lines, note=note)


def convergence_table(scores: PaperScores) -> PaperTable:
    """Image features after each length of training."""
    lines = [
        (
            NAMES[method],
            [
                cell(scores, Quantity(f"{method}-{length}"), CONVERGENCE[method][i])
                for i, length in enumerate(LENGTHS)
            ],
        )
        for method in METHODS
    ]
    columns = ["1/8", "1/4", "1/2", "1"]
    note = "Each length is a full run with its own schedule."
    title = "Length of training, image features"
    return PaperTable("convergence", title, columns, lines, note=note)


def efficiency_table(scores: PaperScores) -> PaperTable:
    """Time and memory of a step relative to SimCLR's."""
    costs = {"simclr": (1.0, 1.0), **COST}
    metrics = ("relative_step_time", "relative_compiled_memory")
    lines = [
        (
            NAMES[method],
            [
                cell(scores, Quantity(method, cost=metric), published)
                for metric, published in zip(metrics, costs[method], strict=True)
            ],
        )
        for method in METHODS
    ]
    note = "One training step on this machine; memory is that of the compiled step, per device."
    columns = ["time", "memory"]
    title = "Time and memory of a step, relative to SimCLR"
    return PaperTable("efficiency", title, columns, lines, "ratio", note)


def bimodal_table(scores: PaperScores) -> PaperTable:
    """Image features beside image and metadata together."""
    lines = []
    for data in _with_metadata(scores):
        published: Mapping[str, tuple[float, float]] = BIMODAL.get(_key(data), {})
        for method in ("satmip", "satmips"):
            image, both = published.get(method, (None, None))
            cells = [
                cell(scores, Quantity(method, data), image),
                cell(scores, Quantity(method, data, "both"), both),
                cell(scores, Quantity(method, data, LEAK_FREE_KINDS["both"])),
            ]
            lines.append((f"{NAMES[method]}, {_label(data, scores)}", cells))
    columns = ["image", "image and metadata", "leak-free"]
    return PaperTable("bimodal", "Image and metadata together", columns, lines, note=_LEAK)


def metadata_table(scores: PaperScores) -> PaperTable:
    """Metadata alone: raw fields, an untrained and a trained encoder."""
    sources = {
        "raw fields": "fields",
        "untrained encoder": "untrained",
        "SatMIP": "satmip",
        "SatMIPS": "satmips",
        "plain numbers": "numbers",
    }
    sets = _with_metadata(scores)
    lines = []
    for i, (label, variant) in enumerate(sources.items()):
        cells = []
        for data in sets:
            published = METADATA.get(_key(data), ())[i : i + 1]  # of the first three
            cells.append(cell(scores, Quantity(variant, data, "metadata"), *published))
            if data == HOME:
                cells.append(cell(scores, Quantity(variant, data, LEAK_FREE_KINDS["metadata"])))
        lines.append((label, cells))
    names = [_label(data, scores) for data in sets]
    columns = [names[0], f"{names[0]}, leak-free", *names[1:]]
    return PaperTable("metadata", "Metadata alone", columns, lines, note=_LEAK)


def fields_table(scores: PaperScores) -> PaperTable:
    """SatMIP trained on groups of fields."""
    lines = []
    for name, (image, both, transfer) in FIELDS.items():
        cells = [
            cell(scores, Quantity(name), image),
            cell(scores, Quantity(name, features="both"), both),
            cell(scores, Quantity(name, features=LEAK_FREE_KINDS["both"])),
        ]
        if scores.transfers:
            cells.append(cell(scores, Quantity(name, TRANSFER), transfer))
        lines.append((name, cells))
    columns = ["image", "image and metadata", "leak-free"]
    columns += ["mean of transfer"] if scores.transfers else []
    return PaperTable("fields", "SatMIP by its metadata fields", columns, lines, note=_LEAK)


_LEAK = (
    "Leak-free: scored without the fields that reveal the size of the image, and with it the class"
    " on fMoW (gsd, pixel_size and such); the paper's numbers are with them."
)


def _with_metadata(scores: PaperScores) -> list[str]:
    """Return HOME, and the transfer sets of which the paper has scores from metadata."""
    return [HOME, *(name for name in map(canonical_name, scores.transfers) if name in METADATA)]


def _key(data: str) -> str:
    return "fmow" if data == HOME else data


def _label(data: str, scores: PaperScores) -> str:
    return scores.home if data == HOME else data
