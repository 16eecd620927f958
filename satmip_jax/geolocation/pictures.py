"""Maps of probabilities over the Earth, and reliability diagrams."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from satmip_jax.geography.grid import RADIUS, great_circle
from satmip_jax.geography.land import countries, lines
from satmip_jax.geolocation.estimate import DISC, format_place
from satmip_jax.geolocation.locate import ImageLocation
from satmip_jax.geolocation.output import format_probability

MAX_MAPS = 12
WATER, OUTSIDE, LAND = "#eaf0f5", "#e3e3df", "#fbfbf8"  # land that is not searched, and that is
COAST, BORDER = "#66727d", "#b4bbc2"
ESTIMATE, STATED = "#c1272d", "#0b6e4f"
_HEAT = LinearSegmentedColormap.from_list(
    "heat", ["#ffffff", "#fde3b0", "#f6a04d", "#c8442a", "#5a0f2e"]
)
_SHOWN = 0.95  # share of the probability inside the frame of a map
_FAINT = 0.04  # of the highest value; what is below has no colour
_STYLE: Any = {"font.size": 9, "text.parse_math": False, "axes.edgecolor": "#777777"}


def draw_maps(locations: Sequence[ImageLocation], images: Sequence[np.ndarray]) -> bytes:
    """Draw a map for each image beside it, as PNG; at most `MAX_MAPS`.

    Args:
        locations: at least one.
        images: uint8 (side, side, 3), one for each.
    """
    shown = list(zip(locations, images, strict=True))[:MAX_MAPS]
    columns = 2 if len(shown) == 4 else min(len(shown), 3)
    rows = -(-len(shown) // columns)
    with matplotlib.rc_context(_STYLE):
        frame = _union([_frame(location) for location, _ in shown])
        shape = _height(frame) / _width(frame)
        width = 7.2 if columns == 1 else 5.4
        height = min(max(width * shape, 0.45 * width), 1.15 * width) + 0.75
        figure = Figure(figsize=(columns * width, rows * height), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for axis in axes[len(shown) :]:
            axis.set_axis_off()
        for axis, (location, image) in zip(axes, shown, strict=False):
            _draw(axis, frame, location, image)
        figure.supxlabel(_legend(locations), fontsize=8, color="#444444")
        return _png(figure)


def _legend(locations: Sequence[ImageLocation]) -> str:
    search = locations[0].search
    state = "calibrated" if any(one.calibrated for one in locations) else "not calibrated"
    lines = [
        f"colour: probability per km², {state}, dark is high (square root); "
        f"circle: {DISC:g} km around the estimate",
        f"prior: {search.prior}; grey: land not searched; star: place stated by the file",
    ]
    return "\n".join([*lines, str(search.scope)] if search.scope else lines)


def draw_reliability(diagrams: Sequence[tuple[str, Sequence[tuple[float, float, int]]]]) -> bytes:
    """Draw reliability diagrams side by side, as PNG.

    Args:
        diagrams: a statement, such as "within 200 km", and the points of `scores.reliability`.
    """
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(3.4 * len(diagrams), 3.6), layout="constrained")
        axes = figure.subplots(1, len(diagrams), squeeze=False).ravel()
        for axis, (statement, points) in zip(axes, diagrams, strict=True):
            stated, frequency, count = np.array(points, np.float64).reshape(-1, 3).T
            axis.plot([0, 1], [0, 1], color="#9aa0a6", linewidth=1, linestyle="--")
            axis.plot(stated, frequency, color=STATED, linewidth=1.2)
            axis.scatter(stated, frequency, s=10 + 150 * count / count.sum(), color=STATED)
            axis.set_title(f"{statement}, {int(count.sum()):,} images", fontsize=9)
            axis.set_xlabel("stated probability")
            axis.set_ylabel("frequency")
            axis.set_xlim(0, 1)
            axis.set_ylim(0, 1)
            axis.set_aspect("equal")
        return _png(figure)


# --- a map ----------------------------------------------------------------------------------------

_Frame = tuple[float, float, float, float]  # west, south, east, north


def _frame(location: ImageLocation) -> _Frame:
    """Return the part of the grid with nearly all of the probability, and some land around it."""
    grid, p = location.search.grid, location.probabilities.astype(np.float64)
    order = np.argsort(-p, kind="stable")
    kept = order[: int(np.searchsorted(np.cumsum(p[order]), _SHOWN * p.sum())) + 1]
    west = grid.region[0]
    x = west + (grid.places[kept, 0] - west) % 360
    y = grid.places[kept, 1]
    shown = [x.min(), y.min(), x.max(), y.max()]
    if location.true_place is not None:
        true = west + (location.true_place[0] - west) % 360, location.true_place[1]
        shown = [*np.minimum(shown[:2], true), *np.maximum(shown[2:], true)]
    margin = 0.06 * max(shown[2] - shown[0], shown[3] - shown[1]) + 1.0
    return (
        float(shown[0] - margin),
        float(max(shown[1] - margin, -90)),
        float(shown[2] + margin),
        float(min(shown[3] + margin, 90)),
    )


def _union(frames: Sequence[_Frame]) -> _Frame:
    """Return a frame that holds all; they are of one region, so their longitudes compare."""
    low, high = np.array(frames)[:, :2].min(axis=0), np.array(frames)[:, 2:].max(axis=0)
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])


def _stretch(frame: _Frame) -> float:
    """Return the length of a degree of latitude over that of longitude, in the middle."""
    return 1 / max(float(np.cos(np.radians((frame[1] + frame[3]) / 2))), 0.2)


def _width(frame: _Frame) -> float:
    return frame[2] - frame[0]


def _height(frame: _Frame) -> float:
    return (frame[3] - frame[1]) * _stretch(frame)


def _draw(axis: Axes, frame: _Frame, location: ImageLocation, image: np.ndarray) -> None:
    """Draw the probabilities, coasts and borders, the estimate and the image itself."""
    grid = location.search.grid
    axis.set_facecolor(WATER)
    west, south, east, north = grid.region
    searched = Rectangle(
        (max(west, frame[0]), max(south, frame[1])),
        min(east, frame[2]) - max(west, frame[0]),
        min(north, frame[3]) - max(south, frame[1]),
        transform=axis.transData,
    )
    for ground, clip in ((OUTSIDE, axis.patch), (LAND, searched)):
        land = PolyCollection(_near(_outlines(), frame), facecolors=ground, linewidths=0)
        axis.add_collection(land)
        land.set_clip_path(clip)
    density = np.sqrt(grid.image(location.probabilities / grid.areas))
    highest = float(np.nanmax(density)) or 1.0
    axis.imshow(
        np.where(density >= _FAINT * highest, density, np.nan),
        extent=(west, east, south, north),
        cmap=_HEAT,
        vmin=0,
        vmax=highest,
        interpolation="nearest",
        zorder=1.5,
    )
    for kind, colour, width in (("borders", BORDER, 0.5), ("coasts", COAST, 0.7)):
        drawn = _near(lines(kind), frame)
        axis.add_collection(LineCollection(drawn, colors=colour, linewidths=width, zorder=2))
    x, y = location.place
    x = west + (x - west) % 360
    axis.add_collection(LineCollection([_circle(x, y)], colors=ESTIMATE, linewidths=1.3, zorder=3))
    axis.plot([x], [y], marker="o", markersize=4, color=ESTIMATE, markeredgecolor="white", zorder=3)
    title = f"{format_place(*location.place)}  ({location.places[0].country})"
    if location.true_place is not None:
        true_x = west + (location.true_place[0] - west) % 360
        star: Any = {"marker": "*", "markersize": 13, "markeredgecolor": "white"}
        axis.plot([true_x], [location.true_place[1]], color=STATED, zorder=3, **star)
        away = float(great_circle(np.array(location.place), np.array(location.true_place)))
        title += f", {away:,.0f} km from the stated place"
    near = ", ".join(f"{r} km: {format_probability(p)}" for r, p in location.within.items())
    unlike = ", ".join(location.differences.values())
    stated = f"probability within {near}" + (f"\nnot calibrated: {unlike}" if unlike else "")
    if location.sensors:
        sensor, p = max(location.sensors.items(), key=lambda item: item[1])
        stated += f"; {sensor} {format_probability(p)}"
    name = Path(location.name).name
    axis.set_title(f"{name}\n{title}\n{stated}", fontsize=9, loc="left")
    axis.set_xlim(frame[0], frame[2])
    axis.set_ylim(frame[1], frame[3])
    axis.set_aspect(_stretch(frame))
    axis.xaxis.set_major_locator(MaxNLocator(5))
    axis.yaxis.set_major_locator(MaxNLocator(5))
    axis.xaxis.set_major_formatter(
        FuncFormatter(lambda v, _: _degrees((v + 180) % 360 - 180, "EW"))
    )
    axis.yaxis.set_major_formatter(FuncFormatter(lambda v, _: _degrees(v, "NS")))
    axis.tick_params(labelsize=8, length=2)
    if location.months:
        _bars(axis, location.months)
    inset = axis.inset_axes((0.0, 0.74, 0.26, 0.26), zorder=4)
    inset.imshow(image)
    inset.set_xticks([])
    inset.set_yticks([])
    inset.set_anchor("NW")


def _outlines() -> list[np.ndarray]:
    return [rings[0] for country in countries() for rings in country.polygons if rings]


def _near(parts: Sequence[np.ndarray], frame: _Frame) -> list[np.ndarray]:
    """Return the outlines or lines that may be in a frame, moved by whole turns to it."""
    return [
        part + np.array([turn, 0.0])
        for part in parts
        for turn in (-360.0, 0.0, 360.0)
        if part[:, 0].min() + turn < frame[2] and part[:, 0].max() + turn > frame[0]
    ]


def _circle(longitude: float, latitude: float) -> np.ndarray:
    """Return the places at a distance of `DISC` from a place."""
    angle, bearing = DISC / RADIUS, np.linspace(0, 2 * np.pi, 73)
    y = np.radians(latitude)
    sine = np.sin(y) * np.cos(angle) + np.cos(y) * np.sin(angle) * np.cos(bearing)
    east = np.arctan2(np.sin(bearing) * np.sin(angle) * np.cos(y), np.cos(angle) - np.sin(y) * sine)
    return np.stack([longitude + np.degrees(east), np.degrees(np.arcsin(sine))], axis=1)


def _bars(axis: Axes, months: dict[str, float]) -> None:
    """Draw the probabilities of the months in the lower left corner."""
    bars = axis.inset_axes((0.01, 0.07, 0.3, 0.16), zorder=4)
    bars.bar(range(len(months)), list(months.values()), color=ESTIMATE, width=0.8)
    bars.set_xticks(range(len(months)), [name[0] for name in months], fontsize=6)
    bars.set_yticks([])
    bars.tick_params(length=0, pad=1)
    bars.spines[["top", "left", "right"]].set_visible(False)
    bars.patch.set_alpha(0.8)


def _degrees(value: float, signs: str) -> str:
    return f"{abs(value):g}°{'' if value == 0 else signs[int(value < 0)]}"


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=150, bbox_inches="tight")
    return file.getvalue()
