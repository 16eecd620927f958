"""Places of the synthetic data set, satellite visits of them, and the records of the visits.

The location is drawn first, then what stands there, then one to three visits; `world` has the
probabilities. A record follows fMoW's schema, and `render` paints a scene with the same metadata.
The position of the sun is that of the time and place.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import cos, radians

import numpy as np

from satmip_jax.metadata.record import METRES_PER_DEGREE
from satmip_jax.metadata.regions import sub_region
from satmip_jax.metadata.solar import solar_position
from satmip_jax.sources.synthetic.render import Scene
from satmip_jax.sources.synthetic.world import (
    CLASSES,
    GROUND_SPREAD,
    HABITATS,
    LOCAL_HOUR,
    LOWEST_SUN,
    aridity,
    summer,
    world,
)

SPLITS = ("train", "val")
NARROWEST, WIDEST = 75.0, 450.0  # metres of ground that an image shows

# name -> first year, last year, share, wavelengths in nm
PLATFORMS: dict[str, tuple[int, int, float, tuple[int, int, int]]] = {
    "WORLDVIEW02": (2010, 2017, 0.40, (659, 546, 478)),
    "WORLDVIEW03_VNIR": (2014, 2017, 0.25, (660, 547, 481)),
    "GEOEYE01": (2009, 2017, 0.20, (661, 545, 477)),
    "QUICKBIRD02": (2002, 2014, 0.15, (655, 543, 479)),
}


def utm_zone(longitude: float, latitude: float) -> str:
    """Return the UTM zone and latitude band; Svalbard, an exception, has no places here.

    Example:
        >>> from satmip_jax.sources.synthetic.visits import utm_zone
        >>> utm_zone(8.583, 47.449)
        '32T'
    """
    band = "CDEFGHJKLMNPQRSTUVWX"[min(int((latitude + 80) // 8), 19)]
    norway = band == "V" and 3 <= longitude < 12  # its coast is in one zone
    return f"{32 if norway else int((longitude + 180) // 6) + 1}{band}"


@dataclass(frozen=True)
class Place:
    """One place; a function of (seed, split, index).

    Attributes:
        category: Its class.
        cell: Position in `World.corners` of the cell that it is in.
        country: ISO 3166 alpha-3 code.
        longitude: Degrees east.
        latitude: Degrees north.
        visits: Number of images of it.
    """

    category: str
    cell: int
    country: str
    longitude: float
    latitude: float
    visits: int


# The seed of a place has 3 numbers, that of a visit 4; another one separates the random streams
# (see `render`).
def _place_seed(seed: int, split: str, index: int) -> tuple[int, ...]:
    return seed, SPLITS.index(split) + 1, index + 1


def place(seed: int, split: str, index: int) -> Place:
    """Draw a place: its location, what stands there, and one to three visits."""
    rng = np.random.default_rng([*_place_seed(seed, split, index), 5])
    earth = world()
    cell = min(int(np.searchsorted(earth.cumulative, rng.random(), "right")), len(earth.share) - 1)
    category = CLASSES[rng.choice(len(CLASSES), p=earth.classes[cell])]
    longitude, latitude = (float(x) for x in earth.corners[cell] + rng.random(2))
    visits = int(rng.integers(1, 4))
    return Place(category, cell, earth.country[cell], longitude, latitude, visits)


def plan(seed: int, split: str, images: int) -> Iterator[tuple[int, int]]:
    """Yield the place and the visit of each image; a shorter plan is a prefix of a longer one."""
    index = 0
    while images > 0:
        visits = min(place(seed, split, index).visits, images)
        yield from ((index, visit) for visit in range(visits))
        images -= visits
        index += 1


def _time(
    spot: Place, rng: np.random.Generator, first: int, last: int
) -> tuple[datetime, float, float]:
    """Draw the time of a visit; return it and the azimuth and elevation of the sun."""
    wanted = HABITATS[spot.category].summer
    for _ in range(1000):
        day = datetime(int(rng.integers(first, last + 1)), 1, 1, tzinfo=UTC)
        local = timedelta(days=int(rng.integers(365)), hours=rng.normal(LOCAL_HOUR, 0.3))
        when = (day + local - timedelta(hours=spot.longitude / 15)).replace(microsecond=0)
        azimuth, elevation = solar_position(spot.longitude, spot.latitude, when)
        season = summer(np.array(spot.latitude), np.array(local.days + 1))
        if rng.random() < np.exp(wanted * season - abs(wanted)) and elevation >= LOWEST_SUN:
            break
    return when, azimuth, elevation


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
    sensor = str(rng.choice(list(PLATFORMS), p=[p[2] for p in PLATFORMS.values()]))
    first, last, _, wavelengths = PLATFORMS[sensor]
    when, sun_azimuth, sun_elevation = _time(spot, rng, first, last)
    off_nadir = 40 * rng.beta(2, 2.4)
    target_azimuth = rng.uniform(0, 360)
    ground = HABITATS[spot.category].ground * np.exp(rng.normal(0, GROUND_SPREAD))
    gsd = float(min(max(ground, NARROWEST), WIDEST)) / size
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
        aridity=float(aridity(np.array([[spot.longitude, spot.latitude]]))[0]),
        region=sub_region(spot.country),
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
        "country_code": spot.country,
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
