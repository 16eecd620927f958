"""Places on the sphere, and centres among them by k-means. On the host, without jax."""

from __future__ import annotations

import numpy as np


def unit_vectors(locations: np.ndarray) -> np.ndarray:
    """Longitude and latitude in degrees (n, 2) -> points on the unit sphere, float64 (n, 3).

    There the date line and the poles are places as any other.
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
    """Centres of the places of a data set: k-means of unit vectors, the means put on the sphere.

    A function of the set of locations, of `k` and of `seed` alone: neither the order of the
    locations nor the number of cores matters. Processors of another kind may round otherwise.

    Args:
      locations: longitude and latitude in degrees, (n, 2); n may be 0.
      k: how many centres at most.

    Returns:
      float32 (m, 3) unit vectors; m is k, or the number of distinct places (6 m apart or more)
      where that is less.
    """
    # adding 0 makes -0.0 the 0.0 that it is
    rounded = np.round(unit_vectors(np.reshape(locations, (-1, 2))), 6) + 0.0
    points, counts = np.unique(rounded, axis=0, return_counts=True)
    centres = points if len(points) <= k else _k_means(points, counts, k, seed)
    length = np.linalg.norm(centres, axis=1)
    on_sphere = length > 1e-6  # the mean of opposite places has no direction
    return (centres[on_sphere] / length[on_sphere, None]).astype(np.float32)


def _k_means(points: np.ndarray, counts: np.ndarray, k: int, seed: int) -> np.ndarray:
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):  # threads add up in an order of their own
        return (
            KMeans(k, n_init=1, random_state=seed)
            .fit(points, sample_weight=counts)
            .cluster_centers_
        )
