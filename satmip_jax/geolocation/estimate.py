"""Places from the probabilities of cells: the likeliest discs, and radii that hold a share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from satmip_jax.geography.grid import RADIUS, Grid, chord_to_km, unit

DISC = 200.0  # km, radius of the disc around a place
KERNEL = 300.0  # km
_CENTRES = 256  # cells that are tried as the centre of a disc
_HELD = 0.999  # share of the probability that is smoothed
_PAIRS = 40_000_000  # most distances computed at once


@dataclass(frozen=True)
class Place:
    """A disc of 200 km around the centre of a cell.

    Attributes:
        longitude: degrees.
        latitude: degrees.
        probability: of the disc, without the discs of likelier places.
        country: its name.
        code: ISO 3166 alpha-3; "" if it has none.
    """

    longitude: float
    latitude: float
    probability: float
    country: str
    code: str


def likeliest_places(grid: Grid, probabilities: Float[np.ndarray, " n"], count: int) -> list[Place]:
    """Return the likeliest places, the likeliest first.

    A place is the mode of the probabilities smoothed by a kernel of 300 km (Epanechnikov's), so it
    depends little on the size of the cells. The next ones likewise, from what is left outside of
    the discs of those before. On EuroSAT's random split its median error is 516 km, that of the
    likeliest cell 532, and of the place of the least expected distance 511; but this last one lies
    between the modes, and within 200 km of the truth for 25 % of the images instead of 31 %.

    Args:
        grid: the cells.
        probabilities: of the cells.
        count: most places to return.
    """
    left = np.array(probabilities, np.float64)
    centres = max(min(_CENTRES, _PAIRS // len(grid)), 16)
    order = np.argsort(-left / grid.areas, kind="stable")[:centres]
    likely = np.argsort(-left, kind="stable")
    likely = likely[: int(np.searchsorted(np.cumsum(left[likely]), _HELD * left.sum())) + 1]
    points = grid.points.astype(np.float32)
    chord = np.maximum(2 - 2 * (points[order] @ points[likely].T), 0)  # squared
    kernel = np.maximum(1 - chord * np.float32((RADIUS / KERNEL) ** 2), 0)
    places: list[Place] = []
    for _ in range(count):
        i = order[int((kernel @ left[likely].astype(np.float32)).argmax())]
        longitude, latitude = (float(x) for x in grid.places[i])
        cells = distances(grid, longitude, latitude) <= DISC
        probability = float(left[cells].sum())
        if probability <= 0:
            break
        places.append(Place(longitude, latitude, probability, *grid.country_of(i)))
        left[cells] = 0.0
    return places


def distances(grid: Grid, longitude: float, latitude: float) -> Float[np.ndarray, " n"]:
    """Return the distance of each cell from a place, km."""
    chord = np.linalg.norm(grid.points - unit(np.array([longitude, latitude])), axis=1)
    return chord_to_km(chord)


def probability_within(
    probabilities: Float[np.ndarray, " n"], distance: Float[np.ndarray, " n"], radius: float
) -> float:
    """Return the probability of the cells whose centres lie within a radius, km."""
    return float(min(probabilities[distance <= radius].sum(), 1.0))


def radius_of(
    probabilities: Float[np.ndarray, " n"], distance: Float[np.ndarray, " n"], share: float
) -> float:
    """Return the radius in km that holds a share of the probability.

    Example:
        >>> from satmip_jax.geolocation.estimate import radius_of
        >>> radius_of(np.array([0.6, 0.3, 0.1]), np.array([0.0, 50.0, 900.0]), 0.9)
        50.0
    """
    order = np.argsort(distance, kind="stable")
    held = np.cumsum(probabilities[order])
    return float(distance[order][min(int(np.searchsorted(held, share - 1e-9)), len(held) - 1)])


def format_place(longitude: float, latitude: float) -> str:
    """Return a place in words.

    Example:
        >>> from satmip_jax.geolocation.estimate import format_place
        >>> format_place(-73.25, -3.75)
        '3.75° S, 73.25° W'
    """
    return (
        f"{abs(latitude):.2f}° {'S' if latitude < 0 else 'N'}, "
        f"{abs(longitude):.2f}° {'W' if longitude < 0 else 'E'}"
    )
