"""Metadata of an untrusted GeoTIFF: its coordinates, and the tags of common producers.

Tags are those that GDAL stores in the file, in any of the domains below. A name is looked up as it
is written here, with "IMAGE_1." or without. Nothing beside the file is read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any, cast

from satmip_jax.data.gdal import open_dataset
from satmip_jax.data.tiff_tiles import Window
from satmip_jax.metadata.fields import FIELDS
from satmip_jax.metadata.record import Absent
from satmip_jax.sources.base import UnreadableExample

DIGITS = 7  # decimals of a degree (1 cm); versions of PROJ differ beyond
MAX_DESCRIPTION = 64 << 10  # characters of a JSON description

_DOMAINS = (None, "IMD", "IMAGERY")  # of GDAL; the last two of Maxar and other vendors
_BANDS = "CDEFGHJKLMNPQRSTUVWXX"  # of UTM, 8 degrees each, the last 12
_MERCATOR = 3857
_MAX_DEGREES = 1000.0
_MAX_UNITS = 1e9  # metres or feet
# satId of Maxar's IMD -> the platform as fMoW spells it
_SATELLITES = {
    "QB02": "QUICKBIRD02",
    "GE01": "GEOEYE01",
    "WV01": "WORLDVIEW01",
    "WV02": "WORLDVIEW02",
    "WV03": "WORLDVIEW03_VNIR",
    "WV04": "WORLDVIEW04",
}


def _number(text: str) -> object:
    """Return a number; negative ones such as -999 and -1 stand for unknown."""
    try:
        value = float(text)
    except ValueError:
        return text
    return None if value < 0 else value


def _fraction(text: str) -> object:
    value = _number(text)
    return 100 * value if isinstance(value, float) else value


def _zenith(text: str) -> object:
    value = _number(text)
    return 90 - value if isinstance(value, float) else value


def _plain(text: str) -> object:
    return None if text in ("-999", "-999.0", "-999.000000") else text


def _satellite(text: str) -> object:
    return _SATELLITES.get(text, text)


# Field -> names of tags and how they are read; the first that a file has is used. Our own names of
# the fields are accepted, too, and come first.
_TAGS: dict[str, tuple[tuple[str, Callable[[str], object]], ...]] = {
    "gsd": (("productGSD", _plain), ("meanProductGSD", _plain)),
    "multispectral_gsd": (),
    "timestamp": (
        ("datetime", _plain),
        ("acquired", _plain),  # Planet
        ("TLCTime", _plain),  # Maxar
        ("firstLineTime", _plain),
        ("earliestAcqTime", _plain),
        ("MAP_PROJECTED_PRODUCT.earliestAcqTime", _plain),
        ("ACQUISITIONDATETIME", _plain),  # GDAL, for several vendors
        ("DATATAKE_1_DATATAKE_SENSING_START", _plain),  # Sentinel-2
        ("PRODUCT_START_TIME", _plain),
        ("DATE_ACQUIRED SCENE_CENTER_TIME", _plain),  # Landsat, two tags
        ("TIFFTAG_DATETIME", _plain),  # may be the time of the file
    ),
    "cloud_cover": (
        ("cloud_percent", _number),  # Planet
        ("cloudCover", _fraction),  # Maxar
        ("CLOUD_COVER", _number),  # Landsat
        ("CLOUD_COVERAGE_ASSESSMENT", _number),  # Sentinel-2
        ("CLOUDCOVER", _number),
    ),
    "scan_direction": (("scanDirection", _plain),),
    "target_azimuth_angle": (("meanSatAz", _plain),),
    "sun_azimuth_angle": (
        ("meanSunAz", _plain),
        ("sun_azimuth", _plain),
        ("SUN_AZIMUTH", _plain),
        ("solar_azimuth_angle", _plain),
    ),
    "sun_elevation_angle": (
        ("meanSunEl", _plain),
        ("sun_elevation", _plain),
        ("SUN_ELEVATION", _plain),
        ("solar_zenith_angle", _zenith),
    ),
    "off_nadir_angle": (
        ("meanOffNadirViewAngle", _plain),
        ("off_nadir", _plain),
        ("view_angle", _plain),
    ),
    "sensor_platform": (
        ("platform", _plain),
        ("satId", _satellite),
        ("SPACECRAFT_ID", _plain),
        ("DATATAKE_1_SPACECRAFT_NAME", _plain),
        ("SATELLITEID", _satellite),
        ("satellite_id", _plain),
    ),
}


def read_fields(dataset: Any, window: Window) -> dict[str, object]:
    """Return raw values of the fields for a part of an image, as `Metadata.parse` reads them.

    Tags come first; location, pixel size and UTM zone always follow from the coordinates of the
    window, and so does the GSD if no tag states it.

    Args:
        dataset: An open `rasterio` data set.
        window: The part.
    """
    raw = _tag_fields(dataset)
    try:
        place = _place(dataset, window)
    except UnreadableExample as reason:
        place = {name: Absent(str(reason)) for name in ("location", "pixel_size", "gsd")}
    for name, value in place.items():
        raw.setdefault(name, value)
    return raw


def _tag_fields(dataset: Any) -> dict[str, object]:
    tags = _tags(dataset)
    raw: dict[str, object] = {}
    for field in FIELDS:
        if text := tags.get(field.name, "").strip():
            raw[field.name] = text.split(",") if "," in text else text
            continue
        for names, read in _TAGS.get(field.name, ()):
            texts = [tags.get(name, "").strip() for name in names.split()]
            value = read("T".join(texts)) if all(texts) else None
            if value is not None:
                raw[field.name] = value
                break
    return raw


def _tags(dataset: Any) -> dict[str, str]:
    """Return the tags of the domains, and those of a description that is JSON."""
    tags: dict[str, str] = {}
    for domain in _DOMAINS:
        try:
            pairs: Mapping[str, str] = dataset.tags(ns=domain)
        except UnicodeDecodeError:  # a tag in another encoding makes the domain unreadable
            continue
        for name, text in pairs.items():
            tags.setdefault(name.removeprefix("IMAGE_1."), text.strip(" \t\r\n;\"'"))
    description = tags.get("TIFFTAG_IMAGEDESCRIPTION", "")
    if description.startswith("{") and len(description) <= MAX_DESCRIPTION:
        try:
            content = json.loads(description)
        except (ValueError, RecursionError):
            content = {}
        inner = content.get("atmospheric_correction")  # of Planet
        for part in (content, inner if isinstance(inner, dict) else {}):
            for name, value in part.items():
                if isinstance(value, str | int | float) and not isinstance(value, bool):
                    tags.setdefault(name, str(value))
    return tags


def _place(dataset: Any, window: Window) -> dict[str, object]:
    """Return what follows from the coordinates.

    Raises:
        UnreadableExample: There are none, or they are not on Earth.
    """
    crs, affine = dataset.crs, dataset.transform
    if crs is None or affine.is_identity or affine.is_degenerate:
        raise UnreadableExample("no coordinates")
    x, y = window.x + window.width / 2, window.y + window.height / 2
    # the centre, and pixels half to its right, left, bottom and top
    points = [(x, y), (x + 0.5, y), (x - 0.5, y), (x, y + 0.5), (x, y - 0.5)]
    (longitude, latitude), right, left, below, above = _to_degrees(
        crs, [_transformed(affine, *point) for point in points]
    )
    raw: dict[str, object] = {
        "location": (round(longitude, DIGITS), round(latitude, DIGITS)),
    }
    turned = max(abs(affine.b), abs(affine.d)) > min(abs(affine.a), abs(affine.e))
    geographic = crs.is_geographic
    if turned:
        raw["pixel_size"] = Absent("rotated by about 90 degrees")
    elif geographic:
        raw["pixel_size"] = abs(affine.a), abs(affine.e)
    else:
        raw["pixel_size"] = abs(_wrap(right[0] - left[0])), abs(below[1] - above[1])
    code = _epsg(crs)
    if not geographic and code != _MERCATOR:
        metres = _metres_per_unit(crs)
        raw["gsd"] = (
            metres * math.hypot(affine.a, affine.d),
            metres * math.hypot(affine.b, affine.e),
        )
    else:
        raw["gsd"] = _metres(left, right, latitude), _metres(above, below, latitude)
    zone = code % 100 if code is not None and code // 100 in (326, 327) else 0
    if 1 <= zone <= 60 and -80 <= latitude < 84:
        raw["utm_zone"] = f"{zone}{_BANDS[int((latitude + 80) // 8)]}"
    elif 1 <= zone <= 60:
        raw["utm_zone"] = str(zone)
    return raw


def read_footprint(dataset: Any, window: Window) -> dict[str, object] | None:
    """Return the outline of a part of an image as a GeoJSON polygon of its four corners.

    Longitudes do not jump at the 180th meridian: they may exceed 180 degrees.

    Args:
        dataset: An open `rasterio` data set.
        window: The part.

    Returns:
        Longitudes and latitudes of WGS84; None without coordinates, or if the outline goes around a
        pole.
    """
    crs, affine = dataset.crs, dataset.transform
    if crs is None or affine.is_identity or affine.is_degenerate:
        return None
    left, top, right, bottom = window.x, window.y, window.x + window.width, window.y + window.height
    corners = [(left, bottom), (right, bottom), (right, top), (left, top)]
    points = [((left + right) / 2, (top + bottom) / 2), *corners]
    places = [_transformed(affine, *point) for point in points]
    try:
        (longitude, _), *degrees = _to_degrees(crs, places)
    except UnreadableExample:
        return None
    ring = []
    for (x, _), (east, north) in zip(places[1:], degrees, strict=True):
        near = longitude + (x - places[0][0] if crs.is_geographic else 0)
        unwrapped = east + 360 * round((near - east) / 360)
        ring.append([round(unwrapped, DIGITS), round(north, DIGITS)])
    around_pole = not crs.is_geographic and max(x for x, _ in ring) - min(x for x, _ in ring) > 180
    if around_pole or any(abs(x) > 360 or abs(y) > 90 for x, y in ring):
        return None
    return {"type": "Polygon", "coordinates": [[*ring, ring[0]]]}


def _transformed(affine: Any, x: float, y: float) -> tuple[float, float]:
    return affine.a * x + affine.b * y + affine.c, affine.d * x + affine.e * y + affine.f


def _to_degrees(crs: Any, points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    from rasterio.warp import transform

    xs, ys = zip(*points, strict=True)
    limit = _MAX_DEGREES if crs.is_geographic else _MAX_UNITS
    # PROJ subtracts 360 degrees until a longitude is in range: of 1e300, for ever
    if not all(abs(value) <= limit for point in points for value in point):
        raise UnreadableExample("impossible coordinates")
    try:
        degrees = list(zip(*transform(crs, "EPSG:4326", xs, ys), strict=True))
    except Exception as error:  # not on Earth, or outside the projection
        raise UnreadableExample("impossible coordinates") from error
    if not all(math.isfinite(value) for point in degrees for value in point):
        raise UnreadableExample("impossible coordinates")
    return degrees


def _epsg(crs: Any) -> int | None:
    try:
        code = crs.to_epsg()
    except Exception:  # of many types; a CRS without a code
        return None
    return int(code) if code else None


def _metres_per_unit(crs: Any) -> float:
    try:
        return float(crs.linear_units_factor[1])
    except Exception as error:  # of many types; neither degrees nor a length
        raise UnreadableExample("coordinates of unknown unit") from error


def _metres(one: tuple[float, float], other: tuple[float, float], latitude: float) -> float:
    """Return the distance of two near points on the ellipsoid WGS84."""
    major, squared_eccentricity = 6_378_137.0, 0.00669437999014
    phi = math.radians(latitude)
    root = math.sqrt(1 - squared_eccentricity * math.sin(phi) ** 2)
    east = math.radians(_wrap(other[0] - one[0])) * math.cos(phi) * major / root
    north = math.radians(other[1] - one[1]) * major * (1 - squared_eccentricity) / root**3
    return math.hypot(east, north)


def _wrap(degrees: float) -> float:
    return (degrees + 180) % 360 - 180


def centre(data: bytes) -> tuple[float, float]:
    """Return longitude and latitude of the centre of an image.

    Args:
        data: Contents of a GeoTIFF.

    Returns:
        WGS84 degrees, rounded to `DIGITS` decimals.

    Raises:
        UnreadableExample: The file is damaged, no GeoTIFF, or has no usable coordinates.
    """
    try:
        with open_dataset(data) as image:
            crs, affine = image.crs, image.transform
            point = image.xy(image.height / 2, image.width / 2, offset="ul")
    except Exception as error:  # GDAL raises many types
        raise UnreadableExample("damaged") from error
    if crs is None or affine.is_identity or affine.is_degenerate:
        raise UnreadableExample("no coordinates")
    ((longitude, latitude),) = _to_degrees(crs, [point])
    return round(longitude, DIGITS), round(latitude, DIGITS)


def metres_per_pixel(data: bytes) -> float | None:
    """Return the mean side of the pixels of an image on the ground, by its coordinates.

    Args:
        data: Contents of a GeoTIFF.

    Returns:
        None if the coordinates do not say it.
    """
    try:
        with open_dataset(data) as image:
            place = _place(image, Window(0, 0, image.width, image.height))
    except Exception:  # GDAL raises many types
        return None
    across, down = cast(tuple[float, float], place["gsd"])
    return math.sqrt(across * down)
