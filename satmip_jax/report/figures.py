"""Figures as data URIs, so that the page needs no other file.

A figure holds numbers and fixed texts only. Untrusted names (of classes, runs, metrics) go into its
legend, which the template writes beside the figure as escaped text.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, PercentFormatter

MAX_POINTS = 1000  # per curve
CORRECT, WRONG, UNKNOWN = "#0b6e4f", "#c1272d", "#9aa0a6"

_TAB20 = [matplotlib.colors.to_hex(c) for c in matplotlib.colormaps["tab20"].colors]  # type: ignore[attr-defined]
COLOURS = (*_TAB20[::2], *_TAB20[1::2])  # the ten saturated ones first

_STYLE: Any = {
    "svg.hashsalt": "satmip",  # reproducible bytes
    "text.parse_math": False,
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#777777",
    "axes.labelcolor": "#333333",
    "xtick.color": "#333333",
    "ytick.color": "#333333",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e3e5e8",
    "grid.linewidth": 0.8,
}


@dataclass(frozen=True)
class Picture:
    """A figure for the page.

    Attributes:
        src: data URI.
        alt: text alternative.
        caption: a sentence under the figure.
        legend: (colour, label) pairs, written beside the figure.
        size: width and height in any unit, for their ratio.
    """

    src: str
    alt: str
    caption: str = ""
    legend: Sequence[tuple[str, str]] = ()
    size: tuple[float, float] = (1, 1)


@dataclass(frozen=True)
class Line:
    """A labelled curve.

    Attributes:
        label: entry in the legend.
        points: (x, y) points in the order of x.
    """

    label: str
    points: Sequence[tuple[float, float]] = field(default=())


def data_uri(data: bytes, kind: str) -> str:
    """Encode an image as a URI.

    Args:
        data: bytes of the file.
        kind: media type, such as "image/jpeg".

    Example:
        >>> from satmip_jax.report.figures import data_uri
        >>> data_uri(b"abc", "image/jpeg")
        'data:image/jpeg;base64,YWJj'
    """
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def curves(lines: Sequence[Line], *, y: str, alt: str, percent: bool = False) -> Picture:
    """Draw curves over the images seen.

    Args:
        lines: the curves.
        y: label of the y axis.
        alt: text alternative.
        percent: show fractions as percentages.
    """
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(4.8, 2.9), layout="constrained")
        axis = figure.add_subplot()
        for number, line in enumerate(lines):
            points = np.asarray(line.points, np.float64)
            points = points[:: -(-len(points) // MAX_POINTS) or 1]
            axis.plot(
                points[:, 0],
                points[:, 1],
                color=colour(number),
                linestyle="-" if number < len(COLOURS) // 2 else "--",
                linewidth=1.4,
                marker="o" if len(points) <= 20 else None,
                markersize=3.5,
            )
        axis.set_xlabel("images seen")
        axis.set_ylabel(y)
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))
        if percent:
            axis.yaxis.set_major_formatter(PercentFormatter(1))
        legend = [(colour(number), line.label) for number, line in enumerate(lines)]
        if legend and [label for _, label in legend] == [y]:
            legend = []  # same as the label of the axis
        return _picture(figure, "svg", alt, legend=legend)


def scatter_by_class(
    points: np.ndarray, labels: np.ndarray, classes: Sequence[str], *, alt: str, caption: str
) -> Picture:
    """Draw points coloured by class.

    Args:
        points: (n, 2).
        labels: int (n,), -1 if unknown.
        classes: names of the classes. The most frequent ones have a colour, the others are grey.
        alt: text alternative.
        caption: sentence under the figure.
    """
    counts = np.bincount(labels[labels >= 0], minlength=len(classes))
    ranked = [int(i) for i in np.argsort(-counts, kind="stable") if counts[i]][: len(COLOURS)]
    shown = sorted(ranked)
    legend = [(colour(number), classes[label]) for number, label in enumerate(shown)]
    colours = np.full(len(points), UNKNOWN, dtype=object)
    for number, label in enumerate(shown):
        colours[labels == label] = colour(number)
    if not np.isin(labels, shown).all():
        legend.append((UNKNOWN, "other or unknown"))
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(4.8, 4.4), layout="constrained")
        axis = _bare(figure)
        axis.scatter(points[:, 0], points[:, 1], c=list(colours), s=7, linewidths=0)
        return _picture(figure, "png", alt, caption, legend)


def scatter_by_value(
    points: np.ndarray, values: np.ndarray, *, label: str, alt: str, caption: str
) -> Picture:
    """Draw points (n, 2) coloured by a value (n,); NaN is grey."""
    finite = np.isfinite(values)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(4.8, 4.4), layout="constrained")
        axis = _bare(figure)
        axis.scatter(points[~finite, 0], points[~finite, 1], c=UNKNOWN, s=7, linewidths=0)
        x, y = points[finite].T
        drawn = axis.scatter(x, y, c=values[finite], s=7, linewidths=0, cmap="viridis")
        figure.colorbar(drawn, ax=axis, label=label, shrink=0.8, pad=0.02)
        return _picture(figure, "png", alt, caption)


def locations(points: np.ndarray, correct: np.ndarray, *, alt: str, caption: str) -> Picture:
    """Draw locations coloured by correct and wrong predictions.

    Longitudes are scaled for the median latitude.

    Args:
        points: longitudes and latitudes, degrees, (n, 2).
        correct: bool (n,), whether each prediction is correct.
        alt: text alternative.
        caption: sentence under the figure.
    """
    stretch = 1 / max(float(np.cos(np.radians(np.median(points[:, 1])))), 0.2)
    width, height = np.ptp(points, axis=0) + 1e-3  # degrees
    shape = min(max(height * stretch / width, 0.3), 1.3)
    side = min(8.4, 6.5 / shape)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(side + 0.6, side * shape + 0.5), layout="constrained")
        axis = figure.add_subplot()
        x, y = points[correct].T
        axis.scatter(x, y, c=CORRECT, s=9, alpha=0.65, linewidths=0)
        x, y = points[~correct].T  # on top, with another marker
        axis.scatter(x, y, c=WRONG, s=13, alpha=0.8, linewidths=0.9, marker="x")
        axis.set_xlabel("longitude, degrees")
        axis.set_ylabel("latitude, degrees")
        axis.set_aspect(stretch, adjustable="datalim")
        legend = [
            (CORRECT, f"correct (dots), {int(correct.sum()):,}"),
            (WRONG, f"wrong (crosses), {int((~correct).sum()):,}"),
        ]
        return _picture(figure, "png", alt, caption, legend)


def colour(number: int) -> str:
    """Return the colour of a curve or a class; colours repeat after the last of `COLOURS`."""
    return COLOURS[number % len(COLOURS)]


def _bare(figure: Figure) -> Axes:
    """Add axes without ticks, as the coordinates of t-SNE have no meaning."""
    axis = figure.add_subplot()
    axis.set_xticks([])
    axis.set_yticks([])
    axis.spines[:].set_visible(True)
    axis.spines[:].set_color("#c9ccd1")
    return axis


def _picture(
    figure: Figure,
    kind: str,
    alt: str,
    caption: str = "",
    legend: Sequence[tuple[str, str]] = (),
) -> Picture:
    file = io.BytesIO()
    if kind == "svg":
        figure.savefig(file, format="svg", metadata={"Date": None})
        mime = "image/svg+xml"
    else:
        figure.savefig(file, format="png", dpi=170)
        mime = "image/png"
    width, height = figure.get_size_inches()
    return Picture(
        data_uri(file.getvalue(), mime), alt, caption, legend, (float(width), float(height))
    )
