"""Drawings as data URIs, so that the page needs no other file.

A drawing holds numbers and words of our own only. Names that come from data (classes, runs, keys
of metrics) go into its legend, which the template writes beside it as escaped text.
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

MAX_POINTS = 1000  # of a curve
RIGHT, WRONG, UNKNOWN = "#0b6e4f", "#c1272d", "#9aa0a6"

_TAB20 = [matplotlib.colors.to_hex(c) for c in matplotlib.colormaps["tab20"].colors]  # type: ignore[attr-defined]
COLOURS = (*_TAB20[::2], *_TAB20[1::2])  # the ten strong ones first

_STYLE: Any = {
    "svg.hashsalt": "satmip",  # the same data give the same bytes
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
    """A drawing for the page.

    Attributes:
        src: data URI.
        alt: what it shows, for those who do not see it.
        caption: a sentence under it.
        legend: (colour, label) pairs, written beside it.
        size: width and height, of any unit; what counts is their ratio.
    """

    src: str
    alt: str
    caption: str = ""
    legend: Sequence[tuple[str, str]] = ()
    size: tuple[float, float] = (1, 1)


@dataclass(frozen=True)
class Line:
    """A labelled curve: (x, y) points in the order of x."""

    label: str
    points: Sequence[tuple[float, float]] = field(default=())


def data_uri(data: bytes, kind: str) -> str:
    """Bytes of an image as a URI, such as of kind "image/jpeg"."""
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def curves(lines: Sequence[Line], *, y: str, alt: str, percent: bool = False) -> Picture:
    """Curves over the images seen; fractions are shown as percent where `percent`."""
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
            legend = []  # the axis says it already
        return _picture(figure, "svg", alt, legend=legend)


def by_class(
    points: np.ndarray, labels: np.ndarray, classes: Sequence[str], *, alt: str, caption: str
) -> Picture:
    """Points (n, 2) coloured by class; the most frequent classes have colours, the others grey."""
    counts = np.bincount(labels[labels >= 0], minlength=len(classes))
    ranked = [int(i) for i in np.argsort(-counts, kind="stable") if counts[i]][: len(COLOURS)]
    shown = sorted(ranked)
    legend = [(colour(place), classes[label]) for place, label in enumerate(shown)]
    colours = np.full(len(points), UNKNOWN, dtype=object)
    for place, label in enumerate(shown):
        colours[labels == label] = colour(place)
    if not np.isin(labels, shown).all():
        legend.append((UNKNOWN, "other or unknown"))
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(4.8, 4.4), layout="constrained")
        axis = _bare(figure)
        axis.scatter(points[:, 0], points[:, 1], c=list(colours), s=7, linewidths=0)
        return _picture(figure, "png", alt, caption, legend)


def by_value(
    points: np.ndarray, values: np.ndarray, *, label: str, alt: str, caption: str
) -> Picture:
    """Points (n, 2) coloured by a number (n,), grey where it is NaN."""
    known = np.isfinite(values)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(4.8, 4.4), layout="constrained")
        axis = _bare(figure)
        axis.scatter(points[~known, 0], points[~known, 1], c=UNKNOWN, s=7, linewidths=0)
        x, y = points[known].T
        drawn = axis.scatter(x, y, c=values[known], s=7, linewidths=0, cmap="viridis")
        figure.colorbar(drawn, ax=axis, label=label, shrink=0.8, pad=0.02)
        return _picture(figure, "png", alt, caption)


def places(locations: np.ndarray, right: np.ndarray, *, alt: str, caption: str) -> Picture:
    """Longitudes and latitudes in degrees (n, 2), coloured by right (bool (n,)) or wrong.

    A degree of longitude is drawn as long as it is at the middle latitude.
    """
    stretch = 1 / max(float(np.cos(np.radians(np.median(locations[:, 1])))), 0.2)
    width, height = np.ptp(locations, axis=0) + 1e-3  # degrees
    shape = min(max(height * stretch / width, 0.3), 1.3)
    side = min(8.4, 6.5 / shape)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(side + 0.6, side * shape + 0.5), layout="constrained")
        axis = figure.add_subplot()
        x, y = locations[right].T
        axis.scatter(x, y, c=RIGHT, s=9, alpha=0.65, linewidths=0)
        x, y = locations[~right].T  # on top, and of another shape
        axis.scatter(x, y, c=WRONG, s=13, alpha=0.8, linewidths=0.9, marker="x")
        axis.set_xlabel("longitude, degrees")
        axis.set_ylabel("latitude, degrees")
        axis.set_aspect(stretch, adjustable="datalim")
        legend = [
            (RIGHT, f"right (dots), {int(right.sum()):,}"),
            (WRONG, f"wrong (crosses), {int((~right).sum()):,}"),
        ]
        return _picture(figure, "png", alt, caption, legend)


def colour(number: int) -> str:
    """The colour of a curve or a class; they repeat after `COLOURS`."""
    return COLOURS[number % len(COLOURS)]


def _bare(figure: Figure) -> Axes:
    """Axes without numbers: those of a map of features mean nothing."""
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
