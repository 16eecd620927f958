"""The world of the synthetic data set: what stands where.

As in fMoW, metadata say something about the class. What stands at a place depends on its climate
and on its part of the world; what is of interest in summer is photographed in summer; and an image
shows as much ground as its object needs. Places are on the land of the Earth, and have the
countries of Natural Earth; the climate is made of latitude and a few deserts and rain forests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Float, Float64

from satmip_jax.geography.grid import Grid
from satmip_jax.geography.land import countries
from satmip_jax.metadata.regions import sub_region

LOWEST_SUN = 18.0  # degrees; satellites take no images at dusk
LOCAL_HOUR = 10.5  # mean solar time of the satellites
GROUND_SPREAD = 0.25  # standard deviation of the logarithm of the ground width of a class
FAVOUR = 20.0  # factor of the odds of a class in the parts of the world that favour it


@dataclass(frozen=True)
class Habitat:
    """Where and when a class is found, and how much ground an image of it shows.

    Attributes:
        warmth: Mean temperature of the year where it is most common, degrees Celsius, and spread.
        aridity: Aridity where it is most common, and spread.
        regions: Sub-regions of the United Nations that favour it.
        summer: Log-odds of the height of summer over the mean of the year, at middle latitudes.
        ground: Typical ground width of an image, metres.
    """

    warmth: tuple[float, float]
    aridity: tuple[float, float]
    regions: tuple[str, ...]
    summer: float
    ground: float


HABITATS: dict[str, Habitat] = {
    "airport": Habitat(
        (12, 10), (0.4, 0.35), ("Northern America", "Australia and New Zealand"), 0.0, 280
    ),
    "crop_field": Habitat(
        (13, 3), (0.3, 0.1), ("Eastern Europe", "Northern America", "Southern Asia"), 3.0, 250
    ),
    "lake_or_pond": Habitat(
        (3, 3.5), (0.15, 0.15), ("Northern Europe", "Northern America", "Eastern Europe"), 2.0, 210
    ),
    "multi-unit_residential": Habitat(
        (9, 4), (0.35, 0.3), ("Eastern Asia", "Central Asia", "Eastern Europe"), 0.0, 165
    ),
    "parking_lot_or_garage": Habitat(
        (14, 5), (0.3, 0.3), ("Northern America", "Western Europe", "Eastern Asia"), -1.5, 140
    ),
    "solar_farm": Habitat(
        (23, 3.5), (0.9, 0.2), ("Southern Asia", "Western Asia", "Southern Europe"), 1.5, 190
    ),
    "stadium": Habitat(
        (23, 3.5), (0.25, 0.2), ("Latin America and the Caribbean", "Sub-Saharan Africa"), -1.0, 170
    ),
    "storage_tank": Habitat(
        (24, 5), (0.7, 0.2), ("Northern Africa", "Western Asia", "Sub-Saharan Africa"), 0.0, 155
    ),
    "swimming_pool": Habitat(
        (20, 3), (0.4, 0.2), ("Southern Europe", "Australia and New Zealand"), 3.0, 115
    ),
    "wind_farm": Habitat(
        (7, 2.5), (0.35, 0.2), ("Western Europe", "Northern Europe", "Central Asia"), -2.0, 270
    ),
}
CLASSES = tuple(HABITATS)

# Longitude, latitude, their spreads, in degrees, and aridity at the middle relative to 0.35.
_CLIMATES: tuple[tuple[float, float, float, float, float], ...] = (
    (10, 23, 26, 8, 0.75),  # Sahara
    (48, 25, 12, 9, 0.75),  # Arabia
    (60, 40, 14, 7, 0.5),  # Iran to the Karakum
    (95, 42, 15, 6, 0.5),  # Taklamakan and Gobi
    (72, 27, 6, 4, 0.3),  # Thar
    (-111, 33, 8, 7, 0.5),  # Sonora and Mojave
    (-70, -22, 4, 10, 0.6),  # Atacama
    (-68, -42, 5, 8, 0.4),  # Patagonia
    (19, -24, 7, 7, 0.5),  # Kalahari and Namib
    (131, -25, 13, 7, 0.6),  # Australia
    (45, 5, 6, 6, 0.4),  # Horn of Africa
    (-62, -5, 13, 9, -0.4),  # Amazon
    (20, 0, 10, 6, -0.4),  # Congo
    (115, 2, 20, 10, -0.4),  # Malaya to New Guinea
    (5, 54, 18, 9, -0.25),  # western Europe
    (-80, 38, 12, 12, -0.15),  # eastern North America
    (120, 29, 14, 9, -0.15),  # monsoon of China and Japan
)


def mean_temperature(latitude: Float[np.ndarray, ...]) -> Float64[np.ndarray, ...]:
    """Return the mean of the year, degrees Celsius: half a degree less per degree of latitude."""
    return 29 - 0.5 * np.maximum(np.abs(np.asarray(latitude, np.float64)) - 8, 0)


def summer(
    latitude: Float[np.ndarray, ...], day: Float[np.ndarray, ...]
) -> Float64[np.ndarray, ...]:
    """Return the season, from -1 (winter) to 1 (summer), weaker towards the equator.

    Args:
        latitude: Degrees north.
        day: Day of the year, from 1.
    """
    latitude = np.asarray(latitude, np.float64)
    warmest = np.where(latitude >= 0, 200, 17)
    swing = np.minimum(np.abs(latitude) / 56, 1)
    return swing * np.cos(2 * np.pi * (np.asarray(day, np.float64) - warmest) / 365.25)


def aridity(places: Float[np.ndarray, "n 2"]) -> Float64[np.ndarray, " n"]:
    """Return the aridity of places (longitude and latitude, degrees): 0 rain forest to 1 desert."""
    total = np.full(len(places), 0.35)
    for longitude, latitude, wide, high, amount in _CLIMATES:
        east = (places[:, 0] - longitude + 180) % 360 - 180
        total += amount * np.exp(
            -0.5 * ((east / wide) ** 2 + ((places[:, 1] - latitude) / high) ** 2)
        )
    return np.clip(total, 0, 1)


@dataclass(frozen=True)
class World:
    """Cells of land of 1 degree, and how likely a place and a class are in each.

    Attributes:
        corners: West and south of each cell, degrees, (n, 2).
        country: ISO 3166 alpha-3 code of each.
        share: Probability that a place is in the cell; adds up to 1.
        cumulative: Its cumulative sum.
        classes: Probability of each of `CLASSES` in the cell; rows add up to 1.
    """

    corners: Float64[np.ndarray, "n 2"]
    country: Sequence[str]
    share: Float64[np.ndarray, " n"]
    cumulative: Float64[np.ndarray, " n"]
    classes: Float64[np.ndarray, "n classes"]


@cache
def world() -> World:
    """Return the world; the same at every call.

    Example:
        >>> from satmip_jax.sources.synthetic.world import world
        >>> earth = world()
        >>> bool(np.allclose(earth.share @ earth.classes, 0.1))  # the share of each class
        True
    """
    grid = Grid.of_land((-180.0, -54.0, 180.0, 66.0), 1.0)
    codes = [country.code for country in countries()]
    kept = [i for i, k in enumerate(grid.country) if sub_region(codes[k])]
    places = grid.places[kept]
    country = [codes[grid.country[i]] for i in kept]
    warm, dry = mean_temperature(places[:, 1]), aridity(places)
    # People live, and satellites look, where it is neither cold nor dry.
    share = grid.areas[kept] * np.exp(-0.5 * ((warm - 16) / 9) ** 2) * (1.1 - dry)
    share /= share.sum()

    odds = np.empty((len(places), len(CLASSES)))
    regions = np.array([sub_region(code) for code in country])
    for k, habitat in enumerate(HABITATS.values()):
        odds[:, k] = -0.5 * ((warm - habitat.warmth[0]) / habitat.warmth[1]) ** 2
        odds[:, k] -= 0.5 * ((dry - habitat.aridity[0]) / habitat.aridity[1]) ** 2
        odds[:, k] += np.log(FAVOUR) * np.isin(regions, habitat.regions)
    classes = np.exp(np.maximum(odds, -6))  # nothing is impossible
    for _ in range(100):  # until all are equally frequent
        classes /= share @ classes * len(CLASSES)
        classes /= classes.sum(axis=1, keepdims=True)
    return World(places - 0.5, country, share, np.cumsum(share), classes)
