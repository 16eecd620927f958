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
        >>> from satmip_jax.inference.embed.geometry import point_wkb
        >>> len(point_wkb(12.5, 41.9))
        21
    """
    return struct.pack("<BIdd", 1, _POINT, longitude, latitude)


def geojson_wkb(geometry: object) -> bytes | None:
    """Return an untrusted GeoJSON geometry; None if it is no valid point or polygon.

    Args:
        geometry: An object of GeoJSON: Point, Polygon or MultiPolygon, in degrees. An outline whose
            longitudes exceed 180 degrees is divided at the 180th meridian.

    Example:
        >>> from satmip_jax.inference.embed.geometry import geojson_wkb
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
            polygons = [_polygon(rings) for rings in _divided(coordinates)]
        elif kind == "MultiPolygon":
            polygons = [_polygon(part) for part in _listed(coordinates)]
        else:
            return None
    except ValueError:
        return None
    if sum(map(len, polygons)) > 16 * MAX_POINTS:
        return None
    if kind == "Polygon" and len(polygons) == 1:
        return polygons[0]
    return struct.pack("<BII", 1, _MULTI_POLYGON, len(polygons)) + b"".join(polygons)


def wkb_type(wkb: bytes) -> str:
    """Return the type of a geometry of this module, such as "Point"."""
    return TYPES[struct.unpack_from("<I", wkb, 1)[0]]


def wkb_point(wkb: bytes | None) -> tuple[float, float] | None:
    """Return longitude and latitude of a point; None for anything else.

    Example:
        >>> from satmip_jax.inference.embed.geometry import point_wkb, wkb_point
        >>> wkb_point(point_wkb(12.5, 41.9))
        (12.5, 41.9)
    """
    if wkb is None or len(wkb) != 21 or wkb[:5] != struct.pack("<BI", 1, _POINT):
        return None
    longitude, latitude = struct.unpack_from("<dd", wkb, 5)
    return longitude, latitude


def _divided(rings: object) -> list[object]:
    """Return the outlines, within -180 to 180 degrees, of a polygon that may exceed them."""
    outer = [_position(point) for point in _listed(_listed(rings)[0])]
    longitudes = [longitude for longitude, _ in outer]
    if min(longitudes) >= -180 and max(longitudes) <= 180:
        return [rings]
    if len(_listed(rings)) > 1:
        raise ValueError("an outline with holes that exceeds 180 degrees")
    parts = []
    for turn in (-360, 0, 360):
        moved = [(x + turn, y) for x, y in outer[:-1]]
        part = _clipped(_clipped(moved, -180.0, 1), 180.0, -1)
        if len(part) >= 3:
            parts.append([[*part, part[0]]])
    return list(parts)


def _clipped(
    ring: list[tuple[float, float]], meridian: float, side: int
) -> list[tuple[float, float]]:
    """Return the part of a convex outline east (side 1) or west (-1) of a meridian."""
    part: list[tuple[float, float]] = []
    for (x, y), (next_x, next_y) in zip(ring, [*ring[1:], *ring[:1]], strict=True):
        if side * (x - meridian) >= 0:
            part.append((x, y))
        if (x - meridian) * (next_x - meridian) < 0:
            part.append((meridian, y + (next_y - y) * (meridian - x) / (next_x - x)))
    return part if len(set(part)) >= 3 else []


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
