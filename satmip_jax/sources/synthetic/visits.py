"""Places of the synthetic data set, satellite visits of them, and the records of the visits.

Class and location are drawn first, then one to three visits. A record follows fMoW's schema, and
`render` paints a scene with the same metadata. The position of the sun is that of the time and
place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from math import cos, radians

import numpy as np

from satmip_jax.metadata.record import METRES_PER_DEGREE
from satmip_jax.metadata.solar import solar_position
from satmip_jax.sources.synthetic.layouts import LAYOUTS
from satmip_jax.sources.synthetic.render import Scene

CLASSES = tuple(sorted(LAYOUTS))
SPLITS = ("train", "val")

LOWEST_SUN = 18.0  # degrees; satellites take no images at dusk
# Factor between the ground size of a pixel and the sensor's resolution, times the image size: an
# image shows the same area whatever its size in pixels.
MAGNIFICATION = 3.5 * 96

# name -> resolution at nadir in metres, first year, last year, share, wavelengths in nm
PLATFORMS: dict[str, tuple[float, int, int, float, tuple[int, int, int]]] = {
    "WORLDVIEW02": (0.46, 2010, 2017, 0.40, (659, 546, 478)),
    "WORLDVIEW03_VNIR": (0.31, 2014, 2017, 0.25, (660, 547, 481)),
    "GEOEYE01": (0.41, 2009, 2017, 0.20, (661, 545, 477)),
    "QUICKBIRD02": (0.61, 2002, 2014, 0.15, (655, 543, 479)),
}


@dataclass(frozen=True)
class Region:
    """A box of land inside one country.

    Attributes:
        country: ISO 3166 alpha-3 code.
        west: Longitude, degrees.
        east: Longitude, degrees.
        south: Latitude, degrees.
        north: Latitude, degrees.
        aridity: 0 (rain forest) to 1 (desert).
    """

    country: str
    west: float
    east: float
    south: float
    north: float
    aridity: float


REGIONS = (
    Region("USA", -100, -96, 37.5, 39.5, 0.35),
    Region("USA", -113, -110, 32.5, 34.5, 0.9),
    Region("CAN", -108, -103, 50, 53, 0.3),
    Region("MEX", -103, -100.5, 20.5, 23, 0.65),
    Region("BRA", -54, -49, -16, -11, 0.15),
    Region("BRA", -60, -56, -5, -2, 0.0),
    Region("PER", -76.2, -75, -8.5, -6, 0.0),
    Region("ARG", -63, -60, -36, -33, 0.3),
    Region("FRA", 0.5, 4, 45.5, 48.5, 0.15),
    Region("ESP", -5, -2, 38.5, 41.5, 0.55),
    Region("DEU", 9, 11.5, 49.5, 52.5, 0.1),
    Region("POL", 18, 21, 51, 53, 0.15),
    Region("UKR", 31, 34, 48.5, 50.5, 0.25),
    Region("FIN", 24, 27, 61.5, 64.5, 0.1),
    Region("RUS", 45, 50, 54, 57, 0.2),
    Region("RUS", 83, 87, 54, 57, 0.25),
    Region("KAZ", 68, 73, 47, 50, 0.75),
    Region("TUR", 32, 36, 38.5, 40, 0.55),
    Region("EGY", 29, 32, 27, 29, 1.0),
    Region("DZA", 0, 5, 27, 32, 1.0),
    Region("SAU", 44, 48, 22, 26, 1.0),
    Region("IND", 76, 80, 20, 25, 0.45),
    Region("CHN", 113, 117, 33, 36, 0.25),
    Region("CHN", 124, 128, 45, 47.5, 0.25),
    Region("MNG", 102, 107, 46, 48.5, 0.7),
    Region("THA", 101.5, 103.5, 15, 17, 0.2),
    Region("IDN", 112, 114.5, -2.5, -0.5, 0.0),
    Region("NGA", 6, 9, 8, 11, 0.4),
    Region("KEN", 36.5, 38.5, -1, 1, 0.35),
    Region("COD", 21, 25, -4, 1, 0.0),
    Region("ZAF", 23.5, 26.5, -29, -27, 0.5),
    Region("AUS", 144, 148, -34, -31, 0.65),
    Region("AUS", 117, 119, -32.5, -30.5, 0.6),
    Region("NZL", 175.3, 176.2, -39.3, -38.5, 0.05),
)

# Regions where a class is five times as frequent as elsewhere.
_FAVOURED: dict[str, Callable[[Region], bool]] = {
    "airport": lambda r: r.country in ("USA", "CHN", "AUS", "BRA"),
    "crop_field": lambda r: 0.1 <= r.aridity <= 0.35 and abs(r.north) > 30,
    "lake_or_pond": lambda r: r.north > 50 or r.aridity < 0.05,
    "multi-unit_residential": lambda r: r.country in ("RUS", "CHN", "UKR", "POL", "KAZ"),
    "parking_lot_or_garage": lambda r: r.country in ("USA", "CAN", "DEU", "FRA"),
    "solar_farm": lambda r: r.aridity >= 0.55,
    "stadium": lambda r: r.country in ("BRA", "ARG", "ESP", "TUR", "MEX", "ZAF"),
    "storage_tank": lambda r: r.country in ("SAU", "DZA", "NGA", "RUS", "KAZ", "IDN"),
    "swimming_pool": lambda r: abs(r.north) < 42 and r.aridity < 0.7,
    "wind_farm": lambda r: abs(r.north) > 38,
}


def utm_zone(longitude: float, latitude: float) -> str:
    """Return the UTM zone and latitude band; `REGIONS` avoid the exceptions around Norway.

    Example:
        >>> from satmip_jax.sources.synthetic.visits import utm_zone
        >>> utm_zone(8.583, 47.449)
        '32T'
    """
    band = "CDEFGHJKLMNPQRSTUVWX"[min(int((latitude + 80) // 8), 19)]
    return f"{int((longitude + 180) // 6) + 1}{band}"


@dataclass(frozen=True)
class Place:
    """One place; a function of (seed, split, index).

    Attributes:
        category: Its class.
        region: Its region.
        longitude: Degrees east.
        latitude: Degrees north.
        visits: Number of images of it.
    """

    category: str
    region: Region
    longitude: float
    latitude: float
    visits: int


@cache
def _region_odds(category: str) -> np.ndarray:
    weights = np.array([5.0 if _FAVOURED[category](region) else 1.0 for region in REGIONS])
    return weights / weights.sum()


# The seed of a place has 3 numbers, that of a visit 4; another one separates the random streams
# (see `render`).
def _place_seed(seed: int, split: str, index: int) -> tuple[int, ...]:
    return seed, SPLITS.index(split) + 1, index + 1


def place(seed: int, split: str, index: int) -> Place:
    """Draw a place: its class, uniformly; its location, given the class; one to three visits."""
    rng = np.random.default_rng([*_place_seed(seed, split, index), 5])
    category = CLASSES[rng.integers(len(CLASSES))]
    region = REGIONS[rng.choice(len(REGIONS), p=_region_odds(category))]
    longitude = rng.uniform(region.west, region.east)
    latitude = rng.uniform(region.south, region.north)
    return Place(category, region, longitude, latitude, int(rng.integers(1, 4)))


def draw(
    seed: int, split: str, index: int, visit: int, size: int
) -> tuple[Scene, dict[str, object]]:
    """Draw one visit of a place.

    Args:
        seed: Seed of the data set.
        split: "train" or "val".
        index: Number of the place within the split.
        visit: Number of the visit, from 0.
        size: Minimum of the shorter side of the image, pixels.

    Returns:
        The scene to paint, and its record in fMoW's schema, with all fields.
    """
    spot = place(seed, split, index)
    seeds = (*_place_seed(seed, split, index), visit + 10)
    rng = np.random.default_rng([*seeds, 6])
    sensor = str(rng.choice(list(PLATFORMS), p=[p[3] for p in PLATFORMS.values()]))
    native, first, last, _, wavelengths = PLATFORMS[sensor]
    for _ in range(100):  # until the sun is high enough
        day = datetime(int(rng.integers(first, last + 1)), 1, 1, tzinfo=UTC)
        local = timedelta(days=int(rng.integers(365)), hours=rng.normal(10.5, 0.3))
        when = (day + local - timedelta(hours=spot.longitude / 15)).replace(microsecond=0)
        sun_azimuth, sun_elevation = solar_position(spot.longitude, spot.latitude, when)
        if sun_elevation >= LOWEST_SUN:
            break

    off_nadir = 40 * rng.beta(2, 2.4)
    target_azimuth = rng.uniform(0, 360)
    gsd = native / cos(radians(off_nadir)) ** 1.5 * rng.uniform(0.95, 1.1) * MAGNIFICATION / size
    clear = rng.random() < 0.5
    cloud_cover = 0 if clear else int(min(1 + rng.exponential(14), 65))
    width, height = (round(size * rng.uniform(1, 1.2)) for _ in range(2))
    scene = Scene(
        category=spot.category,
        place=seeds[:3],
        visit=seeds,
        width=width,
        height=height,
        gsd=gsd,
        latitude=spot.latitude,
        day=when.timetuple().tm_yday,
        aridity=spot.region.aridity,
        sun_azimuth=sun_azimuth,
        sun_elevation=sun_elevation,
        off_nadir=off_nadir,
        target_azimuth=target_azimuth,
        cloud_cover=cloud_cover,
        sensor=sensor,
    )

    pixel_height = gsd / METRES_PER_DEGREE
    pixel_width = pixel_height / cos(radians(spot.latitude))
    box_w, box_h = (round(side * rng.uniform(0.6, 0.9)) for side in (width, height))
    box_x = round((width - box_w) * rng.uniform(0.3, 0.7))
    box_y = round((height - box_h) * rng.uniform(0.3, 0.7))

    def footprint(x: float, y: float, w: float, h: float) -> str:
        west = spot.longitude + (x - width / 2) * pixel_width
        north = spot.latitude - (y - height / 2) * pixel_height
        east, south = west + w * pixel_width, north - h * pixel_height
        ring = [(west, south), (east, south), (east, north), (west, north), (west, south)]
        return f"POLYGON (({', '.join(f'{a:.12f} {b:.12f}' for a, b in ring)}))"

    def around(name: str, value: float, spread: float, modes: Sequence[str]) -> dict[str, float]:
        """Return the value and its range during the scan."""
        low, high = np.clip(value + spread * rng.uniform((-1, 0), (0, 1)), 0, 360)
        ends = {"min": low, "max": high, "start": low, "end": high}
        variants = {f"{name}_{mode}_dbl": round(float(ends[mode]), 9) for mode in modes}
        return {f"{name}_dbl": round(value, 9), **variants}

    every, extremes = ("end", "max", "min", "start"), ("max", "min")
    box = [box_x, box_y, box_w, box_h]
    record: dict[str, object] = {
        "approximate_wavelengths": list(wavelengths),
        "bounding_boxes": [
            {
                "ID": -1,
                "box": box,
                "category": spot.category,
                "raw_category": spot.category.replace("_", " ").title(),
                "raw_location": footprint(*box),
                "epsg": "4326",
                "spatial_reference": "GCS_WGS_1984",
            },
            {"ID": index, "box": box, "category": spot.category, "visible": "True"},
        ],
        "catalog_id": f"{int(rng.integers(1 << 62)):016X}",
        "cloud_cover": cloud_cover,
        "country_code": spot.region.country,
        "epsg": "4326",
        "gsd": gsd,
        "img_height": height,
        "img_width": width,
        "mean_pixel_height": pixel_height,
        "mean_pixel_width": pixel_width,
        **around("multi_resolution", 4 * gsd, 0.05, every),
        **around("off_nadir_angle", off_nadir, 1.5, every),
        **around("pan_resolution", gsd, 0.01, every),
        "raw_location": footprint(0, 0, width, height),
        "scan_direction": str(rng.choice(("Forward", "Reverse"))),
        "sensor_platform_name": sensor,
        "spatial_reference": "GCS_WGS_1984",
        **around("sun_azimuth", sun_azimuth, 0.7, extremes),
        **around("sun_elevation", sun_elevation, 0.2, extremes),
        **around("target_azimuth", target_azimuth, 8, every),
        "timestamp": when.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "utm": utm_zone(spot.longitude, spot.latitude),
    }
    return scene, record
