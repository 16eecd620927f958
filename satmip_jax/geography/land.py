"""Land and countries of the Earth at 1:50m, from Natural Earth: see NOTICE.txt beside this file.

The shapes are part of the package, so nothing is downloaded. They are topological: neighbours
share the line between them, so a line of one country is a coast, and one of two is a border.
"""

from __future__ import annotations

import functools
import gzip
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int16

_FILE = Path(__file__).with_name("countries-50m.json.gz")
_WITHOUT_NUMBER = {"Kosovo": "XKX"}  # codes that are used without being in ISO 3166


@dataclass(frozen=True)
class Country:
    """A country, or a territory that Natural Earth draws as one.

    Attributes:
        name: English, perhaps abbreviated.
        code: ISO 3166 alpha-3; "" if it has none.
        polygons: each a list of rings of longitude and latitude in degrees, (n, 2): the outer one,
            then holes. A ring across the antimeridian goes on beyond 180 or -180.
    """

    name: str
    code: str
    polygons: tuple[tuple[np.ndarray, ...], ...]


@functools.cache
def countries() -> tuple[Country, ...]:
    """Return all countries, in the order of the file.

    Example:
        >>> from satmip_jax.geography.land import countries
        >>> {country.code: country.name for country in countries()}["PER"]
        'Peru'
    """
    import pycountry

    topology, arcs = _topology()
    found = []
    for shape in topology["objects"]["countries"]["geometries"]:
        name = shape["properties"]["name"]
        known = pycountry.countries.get(numeric=shape["id"]) if "id" in shape else None
        code = known.alpha_3 if known else _WITHOUT_NUMBER.get(name, "")
        polygons = ([_ring(arcs, ring) for ring in rings] for rings in _rings(shape))
        found.append(Country(name, code, tuple(tuple(filter(_is_area, p)) for p in polygons)))
    return tuple(found)


@functools.cache
def lines(kind: str) -> tuple[np.ndarray, ...]:
    """Return the coasts or the borders as lines of longitude and latitude in degrees.

    Args:
        kind: "coasts" or "borders".

    Returns:
        float64 (n, 2) each; no line crosses the antimeridian.
    """
    topology, arcs = _topology()
    uses: Counter[int] = Counter()
    for shape in topology["objects"]["countries"]["geometries"]:
        for rings in _rings(shape):
            uses.update(arc if arc >= 0 else ~arc for ring in rings for arc in ring)
    wanted = 1 if kind == "coasts" else 2
    return tuple(part for arc, n in uses.items() if n == wanted for part in _parts(arcs[arc]))


def rasterize(
    west: float, north: float, cell: float, rows: int, columns: int
) -> Int16[np.ndarray, "rows columns"]:
    """Return the country of each cell of a grid.

    A cell belongs to the country at its centre or, if there is none, to one that it touches.

    Args:
        west: western border of the grid, degrees.
        north: its northern border.
        cell: side of a cell, degrees.
        rows: number of rows, from north to south.
        columns: number of columns, from west to east.

    Returns:
        Positions in `countries`; -1 for water.

    Example:
        >>> from satmip_jax.geography.land import countries, rasterize
        >>> rome, atlantic = rasterize(12, 42, 1, 1, 1), rasterize(-40, 42, 1, 1, 1)
        >>> countries()[rome[0, 0]].code, atlantic.tolist()
        ('ITA', [[-1]])
    """
    from rasterio import Affine
    from rasterio.features import rasterize as burn

    grid: dict[str, Any] = {
        "out_shape": (rows, columns),
        "transform": Affine(cell, 0.0, west, 0.0, -cell, north),
        "fill": -1,
        "dtype": "int16",
    }
    shapes = list(_shapes(west, west + columns * cell))
    if not shapes:
        return np.full((rows, columns), -1, np.int16)
    centre, touched = (burn(shapes, all_touched=touched, **grid) for touched in (False, True))
    return np.where(centre >= 0, centre, touched).astype(np.int16)


def _shapes(west: float, east: float) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield each polygon in GeoJSON's form with the number of its country.

    Polygons are shifted by whole turns to where they meet the longitudes between `west` and `east`.
    """
    for number, country in enumerate(countries()):
        for rings in country.polygons:
            first, last = rings[0][:, 0].min(), rings[0][:, 0].max()
            for turn in (-360.0, 0.0, 360.0):
                if first + turn < east and last + turn > west:
                    moved = [(ring + np.array([turn, 0.0])).tolist() for ring in rings]
                    yield {"type": "Polygon", "coordinates": moved}, number


# --- the file: TopoJSON ---------------------------------------------------------------------------


@functools.cache
def _topology() -> tuple[dict[str, Any], list[Float[np.ndarray, "n 2"]]]:
    """Return the topology and its arcs in degrees."""
    topology = json.loads(gzip.decompress(_FILE.read_bytes()))
    scale, translate = (np.array(topology["transform"][key]) for key in ("scale", "translate"))
    arcs = [np.cumsum(np.array(arc), axis=0) * scale + translate for arc in topology["arcs"]]
    return topology, arcs


def _rings(shape: dict[str, Any]) -> list[list[list[int]]]:
    """Return the polygons of a shape as rings of numbers of arcs."""
    polygons: list[list[list[int]]] = (
        shape["arcs"] if shape["type"] == "MultiPolygon" else [shape["arcs"]]
    )
    return polygons


def _ring(arcs: Sequence[np.ndarray], numbers: Iterable[int]) -> np.ndarray:
    """Join arcs to a closed ring without jumps in longitude; ~n is arc n backwards."""
    pieces = [arcs[n] if n >= 0 else arcs[~n][::-1] for n in numbers]
    ring = np.concatenate([pieces[0], *(piece[1:] for piece in pieces[1:])])
    ring = np.stack([np.unwrap(ring[:, 0], period=360.0), ring[:, 1]], axis=1)
    if abs(ring[-1, 0] - ring[0, 0]) > 180:  # around the South Pole
        pole = np.array([[ring[-1, 0], -90.0], [ring[0, 0], -90.0], ring[0]])
        ring = np.concatenate([ring, pole])
    return ring


def _is_area(ring: np.ndarray) -> bool:
    """Return whether a ring is more than the South Pole, which the file draws as a circle."""
    return bool(ring[:, 1].max() > -89.9)


def _parts(line: np.ndarray) -> list[np.ndarray]:
    """Split a line where it crosses the antimeridian."""
    jumps = np.flatnonzero(np.abs(np.diff(line[:, 0])) > 180) + 1
    return [part for part in np.split(line, jumps) if len(part) > 1 and _is_area(part)]
