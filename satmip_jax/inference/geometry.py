"""Points and polygons in longitude and latitude as well-known binary (WKB), for GeoParquet."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any

_POINT, _POLYGON, _MULTI_POLYGON = 1, 3, 6
TYPES = {_POINT: "Point", _POLYGON: "Polygon", _MULTI_POLYGON: "MultiPolygon"}
MAX_POINTS = 100_000  # of one geometry
_MAX_DEGREES = 360.0


def point_wkb(longitude: float, latitude: float) -> bytes:
    """Return a point.

    Example:
        >>> from satmip_jax.inference.geometry import point_wkb
        >>> len(point_wkb(12.5, 41.9))
        21
    """
    return struct.pack("<BIdd", 1, _POINT, longitude, latitude)


def geojson_wkb(geometry: object) -> bytes | None:
    """Return an untrusted GeoJSON geometry; None if it is no valid point or polygon.

    Args:
        geometry: An object of GeoJSON: Point, Polygon or MultiPolygon, in degrees.

    Example:
        >>> from satmip_jax.inference.geometry import geojson_wkb
        >>> ring = [[0, 0], [1, 0], [1, 1], [0, 0]]
        >>> len(geojson_wkb({"type": "Polygon", "coordinates": [ring]}))
        77
    """
    if not isinstance(geometry, Mapping):
        return None
    kind, coordinates = geometry.get("type"), geometry.get("coordinates")
    try:
        if kind == "Point":
            return point_wkb(*_position(coordinates))
        if kind == "Polygon":
            polygons = [_polygon(coordinates)]
        elif kind == "MultiPolygon":
            polygons = [_polygon(part) for part in _listed(coordinates)]
        else:
            return None
    except ValueError:
        return None
    if sum(map(len, polygons)) > 16 * MAX_POINTS:
        return None
    if kind == "Polygon":
        return polygons[0]
    return struct.pack("<BII", 1, _MULTI_POLYGON, len(polygons)) + b"".join(polygons)


def polygon_wkb(ring: Sequence[tuple[float, float]]) -> bytes:
    """Return a polygon, or two if its outline crosses the 180th meridian.

    Args:
        ring: Corners of a convex outline: longitude and latitude in degrees, longitudes in
            [-180, 180). Not closed.

    Example:
        >>> from satmip_jax.inference.geometry import polygon_wkb, wkb_type
        >>> wkb_type(polygon_wkb([(179, 0), (-179, 0), (-179, 1), (179, 1)]))
        'MultiPolygon'
    """
    longitudes = [longitude for longitude, _ in ring]
    if max(longitudes) - min(longitudes) <= 180:
        parts = [list(ring)]
    else:
        eastwards = [(x + 360 if x < 0 else x, y) for x, y in ring]
        west = _clipped(eastwards, keep_west=True)
        east = [(x - 360, y) for x, y in _clipped(eastwards, keep_west=False)]
        parts = [part for part in (west, east) if len(part) >= 3]
    closed = [[[*part, part[0]]] for part in parts]
    if len(closed) == 1:
        return _polygon(closed[0])
    return struct.pack("<BII", 1, _MULTI_POLYGON, len(closed)) + b"".join(map(_polygon, closed))


def wkb_type(wkb: bytes) -> str:
    """Return the type of a geometry of this module, such as "Point"."""
    return TYPES[struct.unpack_from("<I", wkb, 1)[0]]


def wkb_point(wkb: bytes | None) -> tuple[float, float] | None:
    """Return longitude and latitude of a point; None for anything else.

    Example:
        >>> from satmip_jax.inference.geometry import point_wkb, wkb_point
        >>> wkb_point(point_wkb(12.5, 41.9))
        (12.5, 41.9)
    """
    if wkb is None or len(wkb) != 21 or wkb[:5] != struct.pack("<BI", 1, _POINT):
        return None
    longitude, latitude = struct.unpack_from("<dd", wkb, 5)
    return longitude, latitude


def _clipped(ring: list[tuple[float, float]], *, keep_west: bool) -> list[tuple[float, float]]:
    """Return the part of a convex outline on one side of longitude 180."""
    part: list[tuple[float, float]] = []
    for (x, y), (next_x, next_y) in zip(ring, [*ring[1:], ring[0]], strict=True):
        if x <= 180 if keep_west else x >= 180:
            part.append((x, y))
        if (x - 180) * (next_x - 180) < 0:
            part.append((180.0, y + (next_y - y) * (180 - x) / (next_x - x)))
    return part


def _polygon(rings: object) -> bytes:
    parts = []
    for ring in _listed(rings):
        points = [_position(point) for point in _listed(ring)]
        if len(points) < 4 or points[0] != points[-1]:
            raise ValueError("a ring is not closed")
        parts.append(struct.pack("<I", len(points)))
        parts.extend(struct.pack("<dd", *point) for point in points)
    return struct.pack("<BII", 1, _POLYGON, len(_listed(rings))) + b"".join(parts)


def _position(point: object) -> tuple[float, float]:
    """Return longitude and latitude; a height is left out."""
    listed: Any = _listed(point)
    if len(listed) < 2 or not all(type(x) in (int, float) for x in listed[:2]):
        raise ValueError("no position")
    longitude, latitude = listed[:2]
    if not (abs(longitude) <= _MAX_DEGREES and abs(latitude) <= 90):  # also False for NaN
        raise ValueError("not in degrees")
    if not math.isfinite(longitude):
        raise ValueError("not in degrees")
    return float(longitude), float(latitude)


def _listed(value: object) -> Sequence[object]:
    if not isinstance(value, list | tuple) or not 0 < len(value) <= MAX_POINTS:
        raise ValueError("no list")
    return value
