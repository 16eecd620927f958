"""The figures of the paper, drawn from its tables: ours as bars or curves, the paper's beside."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from satmip_jax.studies.paper.tables import Cell, PaperTable
from satmip_jax.studies.plot import COLOURS, MARKERS

COLUMNS = 4  # of panels
PAPER = "#222222"
LABEL = 0.25  # width of a number beside its bar, of the panel
UNITS = {"percent": "macro F1, %", "ratio": "relative to SimCLR"}
FRACTIONS = (1 / 8, 1 / 4, 1 / 2, 1.0)  # of the schedule


def draw(table: PaperTable) -> Figure:
    """Draw a table of the paper."""
    if table.name == "convergence":
        return curves(table)
    return bars(table, by_line=table.name == "bimodal")


def bars(table: PaperTable, *, by_line: bool = False) -> Figure:
    """Draw a panel per column with a bar per line; the paper's numbers are diamonds.

    Args:
        table: the table.
        by_line: draw a panel per line with a bar per column instead.
    """
    columns, lines = table.columns, table.lines
    if by_line:
        panels = [(label, list(zip(columns, cells, strict=True))) for label, cells in lines]
    else:
        panels = [
            (column, [(label, cells[i]) for label, cells in lines])
            for i, column in enumerate(columns)
        ]
    panels = [panel for panel in panels if any(cell.values for _, cell in panel[1])]
    across = min(COLUMNS, len(panels))
    rows = math.ceil(len(panels) / across)
    categories = [label for label, _ in panels[0][1]]
    height = 0.9 + 0.34 * len(categories)
    figure = Figure(figsize=(2.2 + 2.6 * across, 0.9 + height * rows))
    axes = figure.subplots(rows, across, squeeze=False, sharey=True)
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    for axis, (title, shown) in zip(axes.flat, panels, strict=False):
        numbers = [x for _, c in shown for x in (c.mean, c.published) if x is not None]
        for position, (_, cell) in enumerate(shown):
            _bar(axis, position, cell, table, width=max(numbers))
        axis.set_title(title)
        axis.set_xlabel(UNITS[table.unit])
        axis.margins(x=0.2)
        axis.set_xlim(left=0)
        axis.grid(axis="y", visible=False)
    axes[0, 0].set_yticks(range(len(categories)), categories)
    axes[0, 0].set_ylim(len(categories) - 0.5, -0.5)
    _finish(figure, table, [Patch(color="#999999", label=_ours(table))], "D")
    return figure


def _bar(axis: Axes, position: int, cell: Cell, table: PaperTable, *, width: float) -> None:
    """Draw one score and the paper's; `width` is the largest number in the panel."""
    digits = 1 if table.unit == "percent" else 2
    if cell.mean is not None:
        axis.barh(position, cell.mean, height=0.62, color=COLOURS[position % len(COLOURS)])
        if cell.deviation:
            axis.errorbar(
                cell.mean, position, xerr=cell.deviation, color="#333333", capsize=2, linewidth=1
            )
        end = cell.mean + (cell.deviation or 0.0)
        if cell.published is not None and -0.05 < (cell.published - end) / width < LABEL:
            end = max(end, cell.published)  # the number would lie under the mark
        axis.annotate(
            f"{cell.mean:.{digits}f}",
            (end, position),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=7.5,
        )
    if cell.published is not None:
        axis.plot(
            cell.published,
            position,
            marker="D",
            markersize=4.5,
            color="white",
            markeredgecolor=PAPER,
            markeredgewidth=1.1,
            linestyle="",
            zorder=5,
        )


def curves(table: PaperTable) -> Figure:
    """Draw a curve per line over the share of the schedule, ours and the paper's side by side."""
    figure = Figure(figsize=(8.6, 3.4))
    axes = figure.subplots(1, 2)
    for axis, title, style in zip(axes, ("ours", "the paper, fMoW-RGB"), ("-", "--"), strict=True):
        ours = title == "ours"
        for number, (label, cells) in enumerate(table.lines):
            _curve(axis, number, label, cells, ours=ours, style=style)
        axis.set_xscale("log", base=2)
        axis.set_xticks(FRACTIONS, table.columns)
        axis.minorticks_off()
        axis.set_title(title)
        axis.set_xlabel("share of the schedule")
        axis.set_ylabel(UNITS[table.unit])
    handles = [
        Line2D([], [], color=COLOURS[i], marker=MARKERS[i], label=label)
        for i, (label, _) in enumerate(table.lines)
    ]
    _finish(figure, table, handles, None)
    return figure


def _curve(
    axis: Axes, number: int, label: str, cells: Sequence[Cell], *, ours: bool, style: str
) -> None:
    points = [
        (x, cell.mean if ours else cell.published, cell.deviation if ours else None)
        for x, cell in zip(FRACTIONS, cells, strict=True)
    ]
    points = [point for point in points if point[1] is not None]
    xs, ys, deviations = zip(*points, strict=True) if points else ((), (), ())
    axis.errorbar(
        xs,
        ys,
        yerr=[deviation or 0.0 for deviation in deviations],
        color=COLOURS[number],
        marker=MARKERS[number],
        markersize=4.5,
        linewidth=1.2,
        linestyle=style,
        capsize=2 if any(deviations) else 0,
        label=label,
    )


def _ours(table: PaperTable) -> str:
    seeds = max(len(cell.values) for _, cells in table.lines for cell in cells)
    return f"ours, ± 1 std over {seeds} seeds" if seeds > 1 else "ours, one seed"


def _finish(
    figure: Figure, table: PaperTable, handles: Sequence[Line2D | Patch], paper: str | None
) -> None:
    """Add title and legend."""
    figure.suptitle(table.title, fontsize=11, fontweight="bold")
    shown = list(handles)
    if paper and any(cell.published is not None for _, cells in table.lines for cell in cells):
        shown.append(
            Line2D(
                [],
                [],
                marker=paper,
                markersize=4.5,
                color="white",
                markeredgecolor=PAPER,
                linestyle="",
                label="the paper, fMoW-RGB and its recipe",
            )
        )
    columns = len(shown) if len(figure.axes) > 1 else 1  # one panel is too narrow for a line
    figure.legend(handles=shown, loc="outside lower center", ncols=columns, frameon=False)
