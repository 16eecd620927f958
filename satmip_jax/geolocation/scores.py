"""Scores of estimated places and of probabilities, and baselines that need no joint space."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from satmip_jax.evaluation.fusion import standardize
from satmip_jax.evaluation.knn import nearest
from satmip_jax.geography.grid import great_circle, unit

RADII = (200, 750, 2500)  # km: region, country and continent in the literature on geolocation
STATED = (200, 750)  # km: radii whose probability users read
BINS = 10
NEIGHBOURS = (1, 5, 20, 50)  # numbers of neighbours to choose from


def reliability(
    stated: Float[np.ndarray, " n"], correct: Bool[np.ndarray, " n"], bins: int = BINS
) -> tuple[float, list[tuple[float, float, int]]]:
    """Return the expected calibration error, and the points of a reliability diagram.

    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks".

    Args:
        stated: probabilities, 0 to 1.
        correct: whether what was stated is true.
        bins: number of bins of equal width.

    Returns:
        The mean absolute difference of stated probability and frequency, weighted by the bins'
        examples; and (mean stated probability, frequency, examples) of each bin that has any.

    Example:
        >>> from satmip_jax.geolocation.scores import reliability
        >>> reliability(np.array([0.9, 0.8]), np.array([True, False]))[0].__round__(2)
        0.45
    """
    number = np.clip(np.ceil(stated * bins).astype(int) - 1, 0, bins - 1)
    points = []
    for i in range(bins):
        inside = number == i
        if inside.any():
            mean, frequency = float(stated[inside].mean()), float(correct[inside].mean())
            points.append((mean, frequency, int(inside.sum())))
    error = sum(abs(mean - frequency) * n for mean, frequency, n in points) / max(len(stated), 1)
    return error, points


def distance_scores(error: Float[np.ndarray, " n"]) -> dict[str, float]:
    """Return the median error in km and the share of errors within each of `RADII`."""
    scores = {"median km": float(np.median(error))}
    return scores | {f"within {r} km": float(np.mean(error <= r)) for r in RADII}


def geometric_median(points: Float[np.ndarray, "n k 3"]) -> Float[np.ndarray, "n 3"]:
    """Return the point of each row whose summed distance from k unit vectors is least.

    Weiszfeld's algorithm on chords, projected to the sphere.
    """
    centre = points.mean(axis=1)
    for _ in range(50):
        away = np.linalg.norm(points - centre[:, None], axis=2)
        weight = 1 / np.maximum(away, 1e-9)
        centre = (points * weight[..., None]).sum(axis=1) / weight.sum(axis=1, keepdims=True)
    return np.asarray(centre / np.linalg.norm(centre, axis=1, keepdims=True))


def degrees(points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 2"]:
    """Return longitude and latitude in degrees of points on the unit sphere."""
    x, y, z = np.moveaxis(points, -1, 0)
    return np.degrees(np.stack([np.arctan2(y, x), np.arcsin(np.clip(z, -1, 1))], axis=-1))


def knn_places(
    bank: Float[np.ndarray, "m d"],
    places: Float[np.ndarray, "m 2"],
    queries: Float[np.ndarray, "n d"],
    ks: Sequence[int] = NEIGHBOURS,
) -> dict[int, Float[np.ndarray, "n 2"]]:
    """Return the geometric median of the places of the k nearest examples, for every k.

    Features are standardized by the bank and compared by cosine.

    Args:
        bank: features.
        places: of the bank, degrees.
        queries: features.
        ks: numbers of neighbours; those above the size of the bank are left out.
    """
    known, asked = standardize(bank, queries)
    ks = [k for k in ks if k <= len(bank)]
    _, rows = nearest(known, asked, max(ks))
    points = unit(places)[np.asarray(rows)]
    return {k: degrees(geometric_median(points[:, :k])) for k in ks}


def median_place(places: Float[np.ndarray, "m 2"]) -> Float[np.ndarray, " 2"]:
    """Return the place whose summed distance from all places is least."""
    return degrees(geometric_median(unit(places)[None]))[0]


def best_k(
    estimates: dict[int, np.ndarray], true: Float[np.ndarray, "n 2"], rows: Int[np.ndarray, " r"]
) -> int:
    """Return the number of neighbours of the least median error on some rows."""
    medians = {
        k: float(np.median(great_circle(place[rows], true[rows]))) for k, place in estimates.items()
    }
    return min(medians, key=lambda k: medians[k])
