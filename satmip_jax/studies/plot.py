"""Plots of studies: points by category, curves over training length, bars relative to a reference.

A panel shows one data set and one protocol; the cost of training is shown once. An error bar is one
sample standard deviation over the seeds; for a single run it is the interval of its score.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Sequence
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter, NullLocator

from satmip_jax.evaluation.results import is_fraction
from satmip_jax.studies.base import Axis, Study, Summary
from satmip_jax.studies.table import main_scores

# Okabe and Ito: distinguishable with any colour vision.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#777777")
MARKERS = ("o", "s", "D", "^", "v", "P", "X")
_STYLE: Any = {
    "svg.hashsalt": "satmip",  # reproducible bytes
    "text.parse_math": False,  # names come from data
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#777777",
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#e3e5e8",
    "figure.constrained_layout.use": True,
}


def render(study: Study, summaries: Sequence[Summary]) -> dict[str, bytes]:
    """Draw the plot of a study.

    Args:
        study: the study.
        summaries: its scores; may be empty.

    Returns:
        Format ("svg", "png") -> content of the file.
    """
    return in_formats(lambda: study.draw(study, summaries))


def in_formats(draw: Callable[[], Figure]) -> dict[str, bytes]:
    """Return a figure as files, format -> content, in the style of all plots.

    Args:
        draw: makes the figure.
    """
    with matplotlib.rc_context(_STYLE):
        figure = draw()
        files = {}
        for form in ("svg", "png"):
            buffer = io.BytesIO()
            metadata: dict[str, Any] = {"Date": None} if form == "svg" else {"Software": None}
            figure.savefig(buffer, format=form, dpi=150, metadata=metadata)
            files[form] = buffer.getvalue()
        return files


def points(study: Study, summaries: Sequence[Summary]) -> Figure:
    """Draw a row per category of the study's axis, with a point per kind of features."""
    (axis, *_) = study.x
    drawn = main_scores(study, summaries)
    categories = _unique(s.at(axis.column) for s in drawn)
    kinds = _unique(s.cells["features"] for s in drawn)
    protocols = _unique(s.cells["protocol"] for s in drawn if " " not in s.cells["protocol"])
    rows = _unique((s.cells["dataset"], _setting(s)) for s in drawn)
    height = 0.9 + 0.32 * max(len(categories), 3)
    figure, axes = _grid(study, drawn, len(rows), len(protocols), height, sharex=True)
    step = 0.6 / max(len(kinds), 1)
    for panel, (dataset, setting), protocol in _panels(axes, rows, protocols):
        for band in range(0, len(categories), 2):
            panel.axhspan(band - 0.5, band + 0.5, color="#f5f6f8", zorder=0)
        for s in drawn:
            if (s.cells["dataset"], s.cells["protocol"]) != (dataset, protocol + setting):
                continue
            kind = kinds.index(s.cells["features"])
            position = categories.index(s.at(axis.column)) + step * (kind - (len(kinds) - 1) / 2)
            _point(panel, s, kind, horizontal=True, position=position)
        panel.set_title(f"{dataset}: {protocol}{setting}")
        panel.set_xlabel(_value_label(study))
        panel.tick_params(labelbottom=True)
        panel.set_ylim(len(categories) - 0.5, -0.5)
        panel.grid(axis="y", visible=False)
    for panel in axes[:, 0]:
        panel.set_yticks(range(len(categories)), [str(c) for c in categories])
        panel.set_ylabel(axis.label)
    _legend(figure, kinds, "features")
    return figure


def lines(study: Study, summaries: Sequence[Summary]) -> Figure:
    """Draw a curve of image scores per method, over each axis of the study."""
    drawn = [s for s in main_scores(study, summaries) if s.cells["features"] == "image"]
    methods = _unique(s.cells["method"] for s in drawn)
    rows = _unique((s.cells["dataset"], s.cells["protocol"]) for s in drawn)
    figure, axes = _grid(study, drawn, len(rows), len(study.x), 2.6)
    for panel, (dataset, protocol), axis in _panels(axes, rows, study.x):
        panel_key = (dataset, protocol)
        in_panel = [s for s in drawn if (s.cells["dataset"], s.cells["protocol"]) == panel_key]
        for number, method in enumerate(methods):
            curve = [s for s in in_panel if s.cells["method"] == method]
            curve = sorted((s for s in curve if s.at(axis.column)), key=lambda s: s.at(axis.column))
            x, y = [s.at(axis.column) for s in curve], [_scaled(s)[0] for s in curve]
            panel.plot(x, y, color=_colour(number), linewidth=1.2)
            for s in curve:
                _point(panel, s, number, horizontal=False, position=s.at(axis.column))
        _scale(panel, axis, sorted({s.at(axis.column) for s in in_panel if s.at(axis.column)}))
        panel.set_title(f"{dataset}: {protocol}")
    for panel in axes[:, 0]:
        panel.set_ylabel(_value_label(study))
    _legend(figure, methods, "method")
    return figure


def scaling(study: Study, summaries: Sequence[Summary]) -> Figure:
    """Draw the image scores over the study's axis, and below them throughput and memory once."""
    axis = study.x[0]
    drawn = [s for s in main_scores(study, summaries) if s.cells["features"] == "image"]
    protocols = _unique(s.cells["protocol"] for s in drawn if " " not in s.cells["protocol"])
    rows = _unique((s.cells["dataset"], _setting(s)) for s in drawn)
    costs = {"images_per_second": "images / s", "compiled_gib": "memory per device, GiB"}
    columns = max(len(protocols), len(costs))
    figure, axes = _grid(study, drawn, len(rows) + 1, columns, 2.6, sharey=False)
    exchanges = _unique(s.at("exchange") for s in drawn)
    positions = sorted({s.at(axis.column) for s in drawn})
    used = set()
    for panel, (dataset, setting), protocol in _panels(axes, rows, protocols):
        for s in drawn:
            if (s.cells["dataset"], s.cells["protocol"]) == (dataset, protocol + setting):
                number = exchanges.index(s.at("exchange"))
                _point(panel, s, number, horizontal=False, position=s.at(axis.column))
        panel.set_title(f"{dataset}: {protocol}{setting}")
        panel.set_ylabel(_value_label(study))
        used.add(panel)
    # the training behind all scores of a variant is the same
    trained = list({s.cells["variant"]: s for s in drawn}.values())
    for panel, _, column in _panels(axes[-1:], [None], list(costs)):
        measured = [s for s in trained if s.at(column) is not None]
        for s in measured:
            number = exchanges.index(s.at("exchange"))
            colour, marker = _colour(number), MARKERS[number % len(MARKERS)]
            panel.plot(s.at(axis.column), s.at(column), color=colour, marker=marker)
        panel.set_title(costs[column])
        panel.set_ylim(0, 1.1 * max((s.at(column) for s in measured), default=1.0))
        used.add(panel)
    for panel in axes.flat:
        panel.set_visible(panel in used)
        _scale(panel, axis, positions)
    _legend(figure, exchanges, "exchange")
    return figure


def bars(study: Study, summaries: Sequence[Summary]) -> Figure:
    """Draw a bar per category of the study's axis in a panel per metric; the reference is at 1."""
    (axis, *_) = study.x
    metrics = [m for m in study.metrics if m.startswith("relative_")]
    drawn = [s for s in summaries if s.cells["metric"] in metrics]
    categories = _unique(s.at(axis.column) for s in drawn)
    metrics = [m for m in metrics if any(s.cells["metric"] == m for s in drawn)]
    height = 0.9 + 0.4 * max(len(categories), 3)
    figure, axes = _grid(study, drawn, 1, len(metrics), height)
    for panel, _, metric in _panels(axes, [None], metrics):
        for s in (s for s in drawn if s.cells["metric"] == metric):
            position = categories.index(s.at(axis.column))
            panel.barh(position, s.mean, height=0.6, color=_colour(position))
            low, high = s.error_bar
            if low or high:
                panel.errorbar(s.mean, position, xerr=[[low], [high]], color="#333333", capsize=2)
            text = f" {s.mean:.2f}"
            panel.text(s.mean + high, position, text, va="center", ha="left", color="#333333")
        panel.axvline(1, color="#333333", linewidth=0.8, linestyle=":")
        panel.margins(x=0.14)
        panel.set_xlim(left=0)
        panel.set_title(metric.removeprefix("relative_").replace("_", " "))
        panel.set_xlabel(f"relative to {categories[0]}")
        panel.set_ylim(len(categories) - 0.5, -0.5)
        panel.grid(axis="y", visible=False)
    axes[0, 0].set_yticks(range(len(categories)), [str(c) for c in categories])
    axes[0, 0].set_ylabel(axis.label)
    return figure


def _setting(s: Summary) -> str:
    """Return the suffix of the protocol's name: "" or " blocked 1deg"."""
    return s.cells["protocol"][len(s.cells["protocol"].split(" ")[0]) :]


def _grid(
    study: Study,
    drawn: Sequence[Summary],
    rows: int,
    columns: int,
    height: float,
    *,
    sharex: bool = False,
    sharey: Literal["row"] | bool = "row",
) -> tuple[Figure, np.ndarray]:
    """Return a figure of (rows, columns) panels, at least one, each `height` inches high."""
    rows, columns = max(rows, 1), max(columns, 1)
    figure = Figure(figsize=(2.4 + 3.2 * columns, 0.7 + height * rows))
    axes = figure.subplots(rows, columns, squeeze=False, sharex=sharex, sharey=sharey)
    figure.suptitle(study.title, fontsize=11, fontweight="bold")
    figure.supxlabel(_error_bar_note(drawn), fontsize=7.5, color="#555555")
    return figure, axes


def _panels(axes: np.ndarray, rows: Sequence[Any], columns: Sequence[Any]) -> list[Any]:
    return [
        (axes[i, j], row, column) for i, row in enumerate(rows) for j, column in enumerate(columns)
    ]


def _error_bar_note(drawn: Sequence[Summary]) -> str:
    """Return a note on the meaning of the error bars."""
    if not drawn:
        return "no results yet"
    parts = []
    if (seeds := max(len(s.values) for s in drawn)) > 1:
        parts.append(f"± 1 sample standard deviation over {seeds} seeds")
    if any(s.low is not None for s in drawn):
        fraction = is_fraction(drawn[0].cells["metric"])
        interval = (
            "95 % confidence interval over the examples"
            if fraction
            else "quartiles over the rounds"
        )
        parts.append(f"for a single run, {interval}")
    return f"error bars: {'; '.join(parts)}" if parts else "one seed"


def _scaled(s: Summary) -> tuple[float, float, float]:
    """Return the mean and the lengths of its error bar, in units of the plot."""
    low, high = s.error_bar
    return _factor(s) * s.mean, _factor(s) * low, _factor(s) * high


def _factor(s: Summary) -> float:
    """Return the factor from the value to units of the plot: fractions are shown as percentages."""
    return 100.0 if is_fraction(s.cells["metric"]) else 1.0


def _value_label(study: Study) -> str:
    metric = study.metrics[0]
    return metric.replace("_", " ") + (", %" if is_fraction(metric) else "")


def _point(panel: Axes, s: Summary, number: int, *, horizontal: bool, position: float) -> None:
    """Draw a mean with its error bar, and the seeds as small dots."""
    mean, low, high = _scaled(s)
    colour, marker = _colour(number), MARKERS[number % len(MARKERS)]
    x, y, error = (mean, position, "xerr") if horizontal else (position, mean, "yerr")
    bar: Any = {error: [[low], [high]]}
    panel.errorbar(x, y, **bar, color=colour, marker=marker, markersize=5, capsize=2, linewidth=1)
    if len(s.values) > 1:
        each = [_factor(s) * value for value in s.values]
        same = [position] * len(each)
        panel.scatter(*((each, same) if horizontal else (same, each)), s=5, color=colour, alpha=0.4)


def _scale(panel: Axes, axis: Axis, values: Sequence[float]) -> None:
    panel.set_xlabel(axis.label)
    if axis.scale != "log" or not values:
        return
    panel.set_xscale("log")
    few = len(values) <= 8 and all(b / a > 1.5 for a, b in itertools.pairwise(values))
    if few:
        panel.set_xticks(list(values))
        panel.xaxis.set_minor_locator(NullLocator())
    else:
        panel.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    panel.xaxis.set_major_formatter(EngFormatter(sep=" "))
    panel.xaxis.set_minor_formatter(NullFormatter())


def _legend(figure: Figure, names: Sequence[str], title: str) -> None:
    """Add a legend beside the panels, unless there is a single name."""
    if len(names) < 2:
        return
    handles = [
        Line2D([], [], color=_colour(i), marker=MARKERS[i % len(MARKERS)])
        for i in range(len(names))
    ]
    figure.legend(handles, list(names), loc="outside right upper", frameon=False, title=title)


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def _unique(values: Any) -> list[Any]:
    return list(dict.fromkeys(values))
