"""Colours and shapes that the pictures share, for light and dark pages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

Point = tuple[float, float]


@dataclass(frozen=True)
class Palette:
    """The colours of a picture; the colours of boxes hold white text."""

    page: str
    ink: str
    grey: str
    faint: str
    image: str
    metadata: str
    loss: str
    on_box: str = "#ffffff"


LIGHT = Palette("#ffffff", "#1f2933", "#62707c", "#d9dee3", "#2a6f97", "#b5651d", "#5b3a8e")
DARK = Palette("#1e2329", "#e6ebf0", "#9aa7b3", "#3d4854", "#35799f", "#b36a26", "#7b5abd")
PALETTES = {"": LIGHT, "-dark": DARK}

matplotlib.rcParams |= {
    "font.family": "DejaVu Sans",
    "svg.hashsalt": "satmip_jax",  # the same picture has the same bytes
    "svg.image_inline": True,
}


def canvas(width: float, height: float, palette: Palette) -> tuple[Figure, Axes]:
    """Return a figure of this size in inches, and axes whose unit is an inch."""
    figure = Figure(figsize=(width, height), facecolor=palette.page)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(0, height), aspect="equal")
    axes.axis("off")
    return figure, axes


def box(
    axes: Axes,
    corner: Point,
    size: Point,
    text: str,
    colour: str,
    palette: Palette,
    *,
    filled: bool = True,
    fontsize: float = 10.5,
) -> None:
    """Draw a rounded box with centred text."""
    face = colour if filled else palette.page
    shape = "round,pad=0,rounding_size=0.09"
    axes.add_patch(
        FancyBboxPatch(corner, *size, boxstyle=shape, facecolor=face, edgecolor=colour, lw=1.4)
    )
    axes.text(
        corner[0] + size[0] / 2,
        corner[1] + size[1] / 2,
        text,
        ha="center",
        va="center",
        color=palette.on_box if filled else palette.ink,
        fontsize=fontsize,
        linespacing=1.35,
    )


def arrow(axes: Axes, start: Point, end: Point, colour: str, bend: float = 0.0) -> None:
    """Draw an arrow between two points."""
    style: dict[str, Any] = {"arrowstyle": "-|>", "mutation_scale": 11, "linewidth": 1.4}
    style |= {"color": colour, "shrinkA": 0, "shrinkB": 0}
    style["connectionstyle"] = f"arc3,rad={bend}"
    axes.add_patch(FancyArrowPatch(start, end, **style))
