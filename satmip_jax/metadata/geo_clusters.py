"""Clusters of locations: k-means on the unit sphere. On the host, without jax."""

from __future__ import annotations

import numpy as np


def unit_vectors(locations: np.ndarray) -> np.ndarray:
    """Return points on the unit sphere, where the date line and the poles are like anywhere else.

    Args:
        locations: Longitude and latitude in degrees, (n, 2).

    Returns:
        float64 (n, 3).

    Example:
        >>> from satmip_jax.metadata.geo_clusters import unit_vectors
        >>> unit_vectors(np.array([[90.0, 0.0]])).round(6).tolist()
        [[0.0, 1.0, 0.0]]
    """
    longitude, latitude = np.radians(np.asarray(locations, np.float64)).T
    return np.stack(
        [
            np.cos(latitude) * np.cos(longitude),
            np.cos(latitude) * np.sin(longitude),
            np.sin(latitude),
        ],
        axis=1,
    )


def fit_centres(locations: np.ndarray, k: int, seed: int) -> np.ndarray:
    """Return the centres of k clusters of locations: k-means, the means projected to the sphere.

    The result depends only on the set of locations, `k` and `seed`, not on the order of the
    locations or the number of cores. Other processor types may round differently.

    Args:
        locations: Longitude and latitude in degrees, (n, 2); n may be 0.
        k: Maximum number of clusters.
        seed: Seed of the first centres.

    Returns:
        float32 (m, 3) unit vectors; m is k, or the number of distinct locations (6 m apart or
        more) if that is less.

    Example:
        >>> from satmip_jax.metadata.geo_clusters import fit_centres
        >>> places = np.array([[2.35, 48.85], [2.35, 48.85], [-73.3, -3.8]])
        >>> fit_centres(places, 100, seed=0).shape
        (2, 3)
    """
    # adding 0 turns -0.0 into 0.0
    rounded = np.round(unit_vectors(np.reshape(locations, (-1, 2))), 6) + 0.0
    points, counts = np.unique(rounded, axis=0, return_counts=True)
    centres = points if len(points) <= k else _k_means(points, counts, k, seed)
    length = np.linalg.norm(centres, axis=1)
    on_sphere = length > 1e-6  # the mean of opposite locations has no direction
    return (centres[on_sphere] / length[on_sphere, None]).astype(np.float32)


def _k_means(points: np.ndarray, counts: np.ndarray, k: int, seed: int) -> np.ndarray:
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):  # the order of additions depends on the number of threads
        return (
            KMeans(k, n_init=1, random_state=seed)
            .fit(points, sample_weight=counts)
            .cluster_centers_
        )
