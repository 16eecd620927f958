"""Nearest mean: each query takes the class whose mean feature is nearest."""

from __future__ import annotations

import numpy as np


def nearest_mean(
    bank: np.ndarray,
    queries: np.ndarray,
    labels: np.ndarray,
    held_out: np.ndarray,
    num_classes: int,
) -> np.ndarray:
    """Classify queries (m, d) by the class means of a bank (n, d); returns int (m,)."""
    del held_out  # nothing is chosen
    means = np.full((num_classes, bank.shape[1]), np.inf)
    for label in range(num_classes):
        if (labels == label).any():
            means[label] = bank[labels == label].mean(axis=0)
    return np.linalg.norm(queries[:, None] - means[None], axis=2).argmin(axis=1)
