"""Probabilities of candidates from their cosines with images, and the fit that calibrates them.

    p(candidate | image)  ~  mass * density^weight * exp(scale * cosine)

`mass` is the area of a cell (1 for a month or a sensor) and `density` that of the prior. The
negative log-likelihood is convex in (scale, weight): its minimum does not depend on the start.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

CHUNK = 1 << 24  # probabilities computed at once
MAX_SCALE = 1000.0
MAX_WEIGHT = 10.0


@dataclass(frozen=True)
class Candidates:
    """Candidates in the space that images and metadata share.

    Attributes:
        vectors: unit vectors, float32 (m, e).
        mass: natural logarithm of the mass of each.
        density: logarithm of the prior density, up to a constant.
    """

    vectors: Float[np.ndarray, "m e"]
    mass: Float[np.ndarray, " m"]
    density: Float[np.ndarray, " m"]


def log_posterior(
    images: Float[np.ndarray, "n e"], candidates: Candidates, scale: float, weight: float
) -> Float[np.ndarray, "n m"]:
    """Return the logarithm of the probability of each candidate for each image, float64.

    Args:
        images: unit vectors.
        candidates: m of them.
        scale: of the cosine, an inverse temperature.
        weight: of the prior's density; 0 for a uniform prior.

    Example:
        >>> from satmip_jax.geolocation.posterior import Candidates, log_posterior
        >>> two = Candidates(np.eye(2, dtype=np.float32), np.zeros(2), np.log([0.8, 0.2]))
        >>> np.exp(log_posterior(np.zeros((1, 2), np.float32), two, 10.0, 1.0)).round(2)
        array([[0.8, 0.2]])
    """
    cosines = (images @ candidates.vectors.T).astype(np.float64)
    return _normalized(scale * cosines + (weight * candidates.density + candidates.mass))


def fit(
    images: Float[np.ndarray, "n e"],
    candidates: Candidates,
    true: Int[np.ndarray, " n"],
    *,
    weight: float | None = None,
) -> tuple[float, float, float]:
    """Return the scale and the weight of the highest likelihood of the true candidates.

    Args:
        images: unit vectors.
        candidates: m of them.
        true: position of each image's candidate.
        weight: of the prior; fitted by default.

    Returns:
        Scale, weight, and the mean negative log-likelihood of a unit of mass, in nats.
    """
    from scipy.optimize import minimize

    density = np.asarray(candidates.density, np.float32)

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
        scale, by = float(x[0]), float(x[1]) if weight is None else weight
        total, slopes = 0.0, np.zeros(2)
        offset = (by * candidates.density + candidates.mass).astype(np.float32)
        for rows in _chunks(len(images), len(candidates.mass)):
            cosines = images[rows] @ candidates.vectors.T
            logits = np.float32(scale) * cosines + offset
            highest = logits.max(axis=1, keepdims=True)
            odds = np.exp(logits - highest)  # float32: one pass over the largest array
            sums = odds.sum(axis=1, dtype=np.float64)
            at = np.arange(len(logits)), true[rows]
            logp = (logits[at] - highest[:, 0]) - np.log(sums)
            total -= float((logp - candidates.mass[true[rows]]).sum())
            mean_cosine = np.einsum("nm,nm->n", odds, cosines, dtype=np.float64) / sums
            slopes[0] += float((mean_cosine - cosines[at]).sum())
            mean_density = odds @ density / sums
            slopes[1] += float((mean_density - candidates.density[true[rows]]).sum())
        return total / len(images), slopes[: len(x)] / len(images)

    start, bounds = [10.0, 1.0], [(0.0, MAX_SCALE), (0.0, MAX_WEIGHT)]
    free = 2 if weight is None else 1
    result = minimize(loss, start[:free], jac=True, method="L-BFGS-B", bounds=bounds[:free])
    fitted = [float(value) for value in result.x]
    return fitted[0], fitted[1] if weight is None else weight, float(result.fun)


def _normalized(logits: np.ndarray) -> np.ndarray:
    logits = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)))


def _chunks(rows: int, columns: int) -> Iterator[slice]:
    size = max(CHUNK // columns, 1)
    for start in range(0, rows, size):
        yield slice(start, start + size)
