"""Bimodal features: image and metadata side by side, weighed on the bank.

Side by side at the same weight, metadata has half the say even where it knows nothing of a new
place. Its weight is therefore chosen like any other hyperparameter: by the kNN accuracy on examples
of the bank that are held out, in whole spatial cells where places are known.
"""

from __future__ import annotations

import numpy as np

from satmip_jax.evaluation.knn import knn_predict
from satmip_jax.evaluation.metrics import accuracy

WEIGHTS = (0.0, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0)  # of the metadata; the image has 1


def standardize(
    bank: np.ndarray, queries: np.ndarray, rows: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Both by the mean and deviation of the bank; a constant feature becomes 0 in it.

    Args:
        bank, queries: (n, d) and (m, d).
        rows: bool (n,), those of the bank that the statistics are of; all of them by default.

    Returns:
        float32 (n, d) and (m, d).
    """
    bank, queries = np.asarray(bank, np.float64), np.asarray(queries, np.float64)
    used = bank if rows is None else bank[rows]
    if bank.ndim != 2 or bank.shape[1:] != queries.shape[1:] or not len(used):
        raise ValueError(
            f"features of shapes {bank.shape}, {queries.shape}, of which {len(used)} rows are "
            "used: expected (n, d), (m, d), and rows above 0"
        )
    mean, std = used.mean(axis=0), used.std(axis=0)
    # rounding gives a constant feature a deviation of about 1e-17 of its size
    std = np.where(std > 1e-12 * np.abs(mean), std, 1)
    return ((bank - mean) / std).astype(np.float32), ((queries - mean) / std).astype(np.float32)


def fuse(image: np.ndarray, metadata: np.ndarray, weight: float) -> np.ndarray:
    """Standardised features (n, d) and (n, e) side by side: (n, d + e).

    Each modality's squares add up to 1 on average, however many features it has, and then the
    metadata's features are multiplied by `weight`.
    """
    return np.concatenate(
        [image / np.sqrt(image.shape[1]), weight / np.sqrt(metadata.shape[1]) * metadata],
        axis=1,
        dtype=np.float32,
    )


def choose_weight(
    image: np.ndarray,
    metadata: np.ndarray,
    labels: np.ndarray,
    held_out: np.ndarray,
    *,
    num_classes: int,
    k: int = 5,
) -> float:
    """The weight of the metadata by which the bank's held-out examples are classified best.

    Args:
        image, metadata: standardised features of the bank, (n, d) and (n, e).
        labels: int (n,), -1 where unknown.
        held_out: bool (n,), the examples classified by the others.

    Returns:
        One of `WEIGHTS`; of equally good ones the smallest.
    """
    asked = held_out & (labels >= 0)
    voting = np.where(held_out, -1, labels)
    k = min(k, int((voting >= 0).sum()))
    scores = []
    for weight in WEIGHTS:
        both = fuse(image, metadata, weight)
        predicted = knn_predict(both, voting, both[asked], k=k, num_classes=num_classes)
        scores.append(accuracy(labels[asked], predicted))
    return WEIGHTS[int(np.argmax(scores))]
