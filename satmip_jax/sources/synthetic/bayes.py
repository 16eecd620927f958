"""What the metadata of the synthetic data set reveal about the class, by Bayes' rule.

This is the ceiling of what can be learned from metadata alone, because the probabilities are those
of the generator. Time of day, angles, clouds and sensor do not depend on the class.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from jaxtyping import Float64

from satmip_jax.metadata.solar import solar_positions
from satmip_jax.sources.synthetic.visits import draw, place, plan
from satmip_jax.sources.synthetic.world import (
    CLASSES,
    GROUND_SPREAD,
    HABITATS,
    LOCAL_HOUR,
    LOWEST_SUN,
    summer,
    world,
)


def class_probabilities(
    cell: int, *, latitude: float, day: int, ground: float | None
) -> Float64[np.ndarray, " classes"]:
    """Return the probability of each of `CLASSES` given the metadata.

    Args:
        cell: Position in `World.corners` of the cell of the place.
        latitude: Degrees north.
        day: Day of the year, from 1.
        ground: Ground width of the image in metres; None does not use it.

    Example:
        >>> from satmip_jax.sources.synthetic.bayes import class_probabilities
        >>> probable = class_probabilities(900, latitude=52.0, day=180, ground=None)
        >>> probable.shape, round(float(probable.sum()), 6)
        ((10,), 1.0)
    """
    probable = world().classes[cell].copy()
    sun = _days_with_sun(round(latitude))
    for k, habitat in enumerate(HABITATS.values()):
        weights = np.exp(habitat.summer * summer(np.array(latitude), np.arange(1.0, 366))) * sun
        season = np.exp(habitat.summer * summer(np.array(latitude), np.array(day)))
        probable[k] *= season / weights.sum()
        if ground is not None:
            z = np.log(ground / habitat.ground) / GROUND_SPREAD
            probable[k] *= np.exp(-0.5 * z**2)
    return np.asarray(probable / probable.sum())


@cache
def _days_with_sun(latitude: int) -> Float64[np.ndarray, " days"]:
    """Return for each day whether the sun is high enough at the satellites' hour: 0 or 1."""
    day = np.arange(365.0)
    zeros = np.zeros(365)
    _, elevation = solar_positions(zeros, zeros + latitude, day, zeros + LOCAL_HOUR)
    return (elevation >= LOWEST_SUN).astype(np.float64)


def accuracy(seed: int, split: str, images: int) -> tuple[float, float]:
    """Return the accuracy of the most probable class, over the records of a data set.

    Args:
        seed: Of the data set.
        split: "train" or "val".
        images: Number of images of the split.

    Returns:
        From all fields, and from those that do not reveal the ground width.

    Example:
        >>> from satmip_jax.sources.synthetic.bayes import accuracy
        >>> everything, without = accuracy(seed=0, split="val", images=200)
        >>> 0.6 < everything < 0.8, without < everything
        (True, True)
    """
    right = np.zeros((images, 2), bool)
    for row, (index, visit) in enumerate(plan(seed, split, images)):
        spot = place(seed, split, index)
        scene, _ = draw(seed, split, index, visit, 96)
        for column, ground in enumerate((scene.gsd * 96, None)):
            probable = class_probabilities(
                spot.cell, latitude=spot.latitude, day=int(scene.day), ground=ground
            )
            right[row, column] = CLASSES[int(probable.argmax())] == spot.category
    with_ground, without = right.mean(axis=0)
    return float(with_ground), float(without)
