"""Geometry of the classes of the synthetic data set, seen from above, in metres.

A layout is a list of flat areas and upright prisms, each of a named material. It is independent of
sun, season, sensor and resolution, which `render` applies. So the class of an image shows in the
arrangement of its objects, and the metadata in its colours.

East is +x, north is +y, the origin is the centre of the image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

Points = NDArray[np.float64]  # (n, 2): east, north, metres

WORLD = 240.0  # half the side of the square that layouts fill, metres
ROOFS = ("roof_red", "roof_grey", "roof_white", "roof_brown", "roof_blue")


@dataclass(frozen=True)
class Flat:
    """Areas of one material on the ground, without overlap; they need not be convex.

    Attributes:
        outlines: Corners, metres, (areas, corners, 2).
        material: A key of `render.MATERIALS`, or a plant.
        tint: Brightness relative to the material.
    """

    outlines: NDArray[np.float64]
    material: str
    tint: float = 1.0


@dataclass(frozen=True)
class Solid:
    """An upright prism over a convex outline.

    Attributes:
        outline: Corners, metres, (corners, 2).
        top: Height of the roof above the ground, metres.
        material: A key of `render.MATERIALS`, or a plant.
        base: Height of the lower end above the ground, metres.
        tint: Brightness relative to the material.
        gable: Whether the roof has two slopes along the first edge; needs four corners.
    """

    outline: Points
    top: float
    material: str
    base: float = 0.0
    tint: float = 1.0
    gable: bool = False


class Layout:
    """All objects of one place.

    Attributes:
        flats: Areas, from bottom to top.
        solids: Prisms, in any order.
    """

    def __init__(self) -> None:
        self.flats: list[Flat] = []
        self.solids: list[Solid] = []

    def flat(self, outlines: ArrayLike, material: str, tint: float = 1.0) -> None:
        """Add an area (n, 2), or several (k, n, 2), above all earlier areas."""
        points = np.asarray(outlines, np.float64)
        self.flats.append(Flat(points.reshape(-1, *points.shape[-2:]), material, tint))

    def solid(self, outline: Points, top: float, material: str, **options: float) -> None:
        """Add a prism; see `Solid` for the options."""
        self.solids.append(Solid(outline, top, material, **options))  # type: ignore[arg-type]

    def add(self, other: Layout, angle: float, shift: ArrayLike) -> None:
        """Add another layout, rotated by `angle` radians and then moved by `shift` metres."""
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])

        def moved(points: NDArray[np.float64]) -> NDArray[np.float64]:
            return points @ turn + np.asarray(shift)

        self.flats += [replace(f, outlines=moved(f.outlines)) for f in other.flats]
        self.solids += [replace(s, outline=moved(s.outline)) for s in other.solids]


def rectangle(x: float, y: float, width: float, height: float, angle: float = 0.0) -> Points:
    """Return the corners of a rectangle, metres, (4, 2).

    Args:
        x: East coordinate of the centre.
        y: North coordinate of the centre.
        width: Length of the first edge.
        height: Length of the second edge.
        angle: Direction of the first edge, radians from east.

    Example:
        >>> from satmip_jax.sources.synthetic.layouts import rectangle
        >>> rectangle(0, 0, 4, 2).tolist()
        [[-2.0, -1.0], [2.0, -1.0], [2.0, 1.0], [-2.0, 1.0]]
    """
    along = 0.5 * width * np.array([np.cos(angle), np.sin(angle)])
    across = 0.5 * height * np.array([-np.sin(angle), np.cos(angle)])
    corners = [-along - across, along - across, along + across, across - along]
    return np.array(corners) + np.array([x, y])


def ellipse(x: float, y: float, rx: float, ry: float | None = None, corners: int = 20) -> Points:
    """Return the corners of a polygon inscribed in an ellipse, or in a circle if `ry` is None."""
    t = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    return np.stack([x + rx * np.cos(t), y + (rx if ry is None else ry) * np.sin(t)], axis=1)


def blob(rng: np.random.Generator, x: float, y: float, radius: float) -> Points:
    """Return a smooth, irregular, closed shore line, metres, (48, 2)."""
    t = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    r = np.full_like(t, radius)
    for k in (2, 3, 4, 5):
        r += radius * rng.uniform(0, 0.32 / k**0.5) * np.cos(k * t + rng.uniform(0, 2 * np.pi))
    return np.stack([x + r * np.cos(t), y + r * np.sin(t)], axis=1)


def house(layout: Layout, rng: np.random.Generator, x: float, y: float, angle: float) -> None:
    """Add a house with a gable roof."""
    width, depth = rng.uniform(11, 17), rng.uniform(8, 11)
    layout.solid(
        rectangle(x, y, width, depth, angle),
        rng.uniform(5, 9),
        str(rng.choice(ROOFS)),
        tint=rng.uniform(0.85, 1.1),
        gable=True,
    )


def airport(rng: np.random.Generator) -> Layout:
    """Build a runway with dashes, a taxiway, an apron with a terminal and parked aircraft."""
    layout = Layout()
    runway, side = rng.uniform(20, 28), rng.choice((-1, 1))
    layout.flat(rectangle(0, 0, 900, runway), "asphalt", rng.uniform(0.9, 1.2))
    layout.flat([rectangle(x, 0, 12, 2.2) for x in np.arange(-300, 300, 24.0)], "paint")
    taxi = side * rng.uniform(34, 42)
    layout.flat(rectangle(0, taxi, 900, 11), "asphalt")
    for x in rng.uniform(-110, 110, 3):
        layout.flat(rectangle(x, taxi / 2, 10, abs(taxi)), "asphalt")
    apron = taxi + side * 24
    middle, width = rng.uniform(-25, 25), rng.uniform(90, 130)
    layout.flat(rectangle(middle, apron, width, 40), "concrete")
    layout.solid(
        rectangle(middle, apron + side * 26, width * 0.7, 14), rng.uniform(8, 14), "roof_white"
    )
    for x in np.arange(middle - width / 2 + 14, middle + width / 2 - 8, 26.0):
        if rng.random() < 0.85:
            y = apron + rng.uniform(-3, 3)
            layout.solid(rectangle(x, y, 4, 24), 5, "aircraft")
            layout.solid(rectangle(x, y + 2, 22, 4.5), 4, "aircraft")
            layout.solid(rectangle(x, y - side * 10, 9, 3), 6, "aircraft")
    return layout


def crop_field(rng: np.random.Generator) -> Layout:
    """Build parcels that fill the ground, each with a crop and furrows."""
    layout = Layout()
    columns, rows = [
        np.cumsum(np.concatenate([[-1.4 * WORLD], rng.uniform(30, 72, 20)])) for _ in range(2)
    ]
    for left, right in pairwise(columns):
        for low, high in pairwise(rows):
            x, y, w, h = (left + right) / 2, (low + high) / 2, right - left, high - low
            if np.hypot(x, y) > 1.2 * WORLD:
                continue
            crop, tint = f"crop_{rng.integers(4)}", rng.uniform(0.75, 1.2)
            layout.flat(rectangle(x, y, w - 2.5, h - 2.5), crop, tint)
            length, depth, turn = (w, h, 0.0) if rng.random() < 0.5 else (h, w, np.pi / 2)
            step = rng.uniform(7, 11)
            furrows = [
                rectangle(x - at * np.sin(turn), y + at * np.cos(turn), length - 4, 2, turn)
                for at in np.arange(-depth / 2 + step, depth / 2, step)
            ]
            layout.flat(furrows, crop, tint * 0.72)
    return layout


def lake_or_pond(rng: np.random.Generator) -> Layout:
    """Build one irregular water surface with a bank."""
    layout = Layout()
    shore = blob(rng, 0, 0, rng.uniform(42, 66))
    layout.flat(shore * 1.08, "soil")
    layout.flat(shore, "water", rng.uniform(0.8, 1.2))
    return layout


def multi_unit_residential(rng: np.random.Generator) -> Layout:
    """Build long, tall slabs in rows, with paths between them."""
    layout = Layout()
    top, roof = rng.uniform(14, 32), str(rng.choice(ROOFS[1:4]))
    length, gap = rng.uniform(36, 52), rng.uniform(30, 40)
    for row in range(-2, 3):
        layout.flat(rectangle(0, row * gap + gap / 2, 2.4 * length, 4), "concrete")
        for column in (-0.5, 0.5):
            if abs(row) == 2 and rng.random() < 0.4:
                continue
            x = column * (length + 12) + rng.uniform(-3, 3)
            slab = rectangle(x, row * gap, length, 12)
            layout.solid(slab, top * rng.uniform(0.85, 1.15), roof, tint=rng.uniform(0.9, 1.1))
    return layout


def parking_lot_or_garage(rng: np.random.Generator) -> Layout:
    """Build rows of parked cars on a paved lot."""
    layout = Layout()
    width, rows, pitch = rng.uniform(90, 125), int(rng.integers(4, 6)), 21.0
    layout.flat(rectangle(0, 0, width + 14, rows * pitch + 10), "asphalt", rng.uniform(0.9, 1.4))
    layout.flat(rectangle(0, -rows * pitch / 2 - 60, 9, 120), "asphalt")
    filled = rng.uniform(0.5, 0.9)
    for row in range(rows):
        middle = (row - (rows - 1) / 2) * pitch
        layout.flat(rectangle(0, middle, width, 0.9), "paint")
        for y in (middle - 3.6, middle + 3.6):
            for x in np.arange(-width / 2 + 3, width / 2 - 2, 4.6):
                if rng.random() < filled:
                    tint = rng.choice((0.35, 0.6, 1.0, 1.0))
                    layout.solid(rectangle(x, y, 2.7, 5.4), 1.6, "car", tint=tint)
    return layout


def solar_farm(rng: np.random.Generator) -> Layout:
    """Build blocks of long parallel rows of panels."""
    layout = Layout()
    pitch, length = rng.uniform(7, 9.5), rng.uniform(44, 60)
    layout.flat(rectangle(0, 0, 2 * length + 22, 17 * pitch), "soil", 1.1)
    for column in (-0.5, 0.5):
        for row in range(-7, 8):
            if row == 0 or rng.random() < 0.04:
                continue  # a service road, or a row not built
            panel = rectangle(column * (length + 8), row * pitch, length, pitch * 0.55)
            layout.solid(panel, 2.5, "panel", tint=rng.uniform(0.9, 1.1))
    return layout


def stadium(rng: np.random.Generator) -> Layout:
    """Build two tiers of stands around a marked pitch."""
    layout = Layout()
    rx, ry, depth = rng.uniform(34, 42), rng.uniform(24, 30), rng.uniform(18, 24)
    layout.flat(ellipse(0, 0, rx + depth + 12, ry + depth + 12, 32), "concrete")
    layout.flat(ellipse(0, 0, rx, ry, 32), "track")
    layout.flat(rectangle(0, 0, 1.45 * rx, 1.3 * ry), "pitch")
    for x in (-0.72 * rx, 0.0, 0.72 * rx):
        layout.flat(rectangle(x, 0, 1.1, 1.3 * ry), "paint")
    top, opening = rng.uniform(14, 26), rng.integers(4)
    t = np.linspace(0, 2 * np.pi, 29)
    for inner, outer, height, material in (
        (0.0, 0.55, 0.5 * top, "seats"),
        (0.55, 1.0, top, str(rng.choice(("roof_white", "roof_grey")))),
    ):
        for k in range(28):
            if outer == 1.0 and opening < 2 and k % 14 < 2:
                continue  # an entrance at either end
            ring = [(rx + depth * r, ry + depth * r) for r in (inner, inner, outer, outer)]
            angles = np.array([t[k], t[k + 1], t[k + 1], t[k]])
            outline = np.array(ring) * np.stack([np.cos(angles), np.sin(angles)], axis=1)
            layout.solid(outline, height, material)
    return layout


def storage_tank(rng: np.random.Generator) -> Layout:
    """Build round tanks on a grid, each row inside a bund."""
    layout = Layout()
    radius = rng.uniform(10, 14)
    pitch, columns, rows = 2.9 * radius, int(rng.integers(2, 5)), int(rng.integers(2, 4))
    layout.flat(rectangle(0, 0, columns * pitch + 14, rows * pitch + 14), "soil", 1.15)
    for row in range(rows):
        y = (row - (rows - 1) / 2) * pitch
        layout.flat(rectangle(0, y, columns * pitch + 4, pitch - 1), "concrete", 1.1)
        layout.flat(rectangle(0, y, columns * pitch, pitch - 5), "soil")
        for column in range(columns):
            if rng.random() < 0.1:
                continue
            x, r = (column - (columns - 1) / 2) * pitch, radius * rng.uniform(0.75, 1.05)
            tank = "roof_grey" if rng.random() < 0.25 else "roof_white"
            layout.solid(ellipse(x, y, r), rng.uniform(10, 18), tank)
    return layout


def swimming_pool(rng: np.random.Generator) -> Layout:
    """Build a large pool with decks, smaller pools beside it, and changing rooms."""
    layout = Layout()
    width, depth = rng.uniform(34, 52), rng.uniform(16, 24)
    layout.flat(rectangle(0, 0, width + 22, depth + 22), "concrete", 1.15)
    layout.flat(rectangle(0, 0, width, depth), "pool")
    for y in np.linspace(-depth / 2, depth / 2, 7)[1:-1]:
        layout.flat(rectangle(0, y, width - 2, 0.9), "pool", 0.75)
    side = rng.choice((-1, 1))
    for x in (-0.3, 0.3)[: int(rng.integers(1, 3))]:
        spot = (x * width, -side * (depth / 2 + 26))
        layout.flat(ellipse(*spot, 15, 13), "concrete", 1.15)
        layout.flat(ellipse(*spot, 10, 8), "pool", 1.1)
    layout.solid(rectangle(0, side * (depth / 2 + 20), width * 0.9, 10), 6, "roof_grey")
    return layout


def wind_farm(rng: np.random.Generator) -> Layout:
    """Build turbines in a row along a track; their shadows are larger than they are."""
    layout = Layout()
    pitch, top, blade = rng.uniform(62, 78), rng.uniform(44, 58), rng.uniform(24, 30)
    layout.flat(rectangle(0, 0, 900, 4.5), "soil", 1.2)
    for x in np.arange(-3, 4) * pitch + rng.uniform(-10, 10):
        y = rng.choice((-1, 1)) * rng.uniform(12, 30)
        layout.flat(rectangle(x, y / 2, 4, abs(y)), "soil", 1.2)
        layout.flat(rectangle(x, y, 15, 13), "soil", 1.2)
        layout.solid(ellipse(x, y, 2.2, corners=8), top, "steel")
        start = rng.uniform(0, 2 * np.pi)
        for t in start + np.arange(3) * 2 * np.pi / 3:
            hub, tip = np.array([x, y]), blade * np.array([np.cos(t), np.sin(t)])
            side = 1.7 * np.array([-np.sin(t), np.cos(t)])
            outline = hub + np.array([side, -side, tip - side / 3, tip + side / 3])
            layout.solid(outline, top + 1, "steel", base=top - 1)
    return layout


# Class name, one of fMoW's 62 -> (builder, radius in metres kept free of other objects).
LAYOUTS: dict[str, tuple[Callable[[np.random.Generator], Layout], float]] = {
    "airport": (airport, 75.0),
    "crop_field": (crop_field, 40.0),
    "lake_or_pond": (lake_or_pond, 78.0),
    "multi-unit_residential": (multi_unit_residential, 72.0),
    "parking_lot_or_garage": (parking_lot_or_garage, 80.0),
    "solar_farm": (solar_farm, 78.0),
    "stadium": (stadium, 78.0),
    "storage_tank": (storage_tank, 65.0),
    "swimming_pool": (swimming_pool, 50.0),
    "wind_farm": (wind_farm, 40.0),
}


def surroundings(layout: Layout, rng: np.random.Generator, center: ArrayLike, free: float) -> None:
    """Add objects of any place: parcels, roads, houses, some with a pool, a pond, trees."""

    def spots(n: int) -> Points:
        points = rng.uniform(-WORLD, WORLD, (n, 2))
        return points[np.hypot(*(points - np.asarray(center)).T) > free]

    under = Layout()  # areas below those of the class
    turn = rng.uniform(0, np.pi)
    for x, y in spots(int(rng.integers(0, 26))):
        material = str(rng.choice(("asphalt", "concrete", "soil", "water", "panel", "crop_3")))
        width, depth = rng.uniform(12, 60, 2)
        under.flat(rectangle(x, y, width, depth, turn), material, rng.uniform(0.8, 1.2))
    for _ in range(int(rng.integers(0, 3))):
        reach, turn = free + rng.uniform(10, 60), turn + np.pi / 2
        x, y = np.asarray(center) + reach * np.array([-np.sin(turn), np.cos(turn)])
        under.flat(rectangle(x, y, 6 * WORLD, rng.uniform(6, 10), turn), "asphalt", 1.1)
    if rng.random() < 0.3:
        for x, y in spots(1):
            under.flat(blob(rng, x, y, rng.uniform(14, 26)), "water")
    for x, y in spots(int(rng.integers(6, 34))):
        angle = turn + rng.choice((0, np.pi / 2))
        house(layout, rng, x, y, angle)
        if rng.random() < 0.12:
            under.flat(rectangle(x - 13, y + 9, 10, 6, angle), "pool")
        if rng.random() < 0.3:
            under.flat(rectangle(x + 6, y - 14, 16, 10, angle), "concrete")
    for x, y in spots(int(rng.integers(10, 90))):
        layout.solid(
            ellipse(x, y, rng.uniform(2.5, 5.5), corners=9),
            rng.uniform(5, 13),
            "tree",
            tint=rng.uniform(0.75, 1.2),
        )
    layout.flats[:0] = under.flats


def layout_of(category: str, seed: Sequence[int]) -> Layout:
    """Return the layout of one place of a class; the same for the same seed.

    Args:
        category: A key of `LAYOUTS`.
        seed: Non-negative integers.
    """
    rng = np.random.default_rng(seed)
    build, free = LAYOUTS[category]
    center = rng.uniform(-14, 14, 2)
    # Solar panels face the equator; everything else has a random direction.
    angle = rng.uniform(-0.25, 0.25) if category == "solar_farm" else rng.uniform(0, 2 * np.pi)
    layout = Layout()
    layout.add(build(rng), angle, center)
    surroundings(layout, rng, center, free)
    return layout
