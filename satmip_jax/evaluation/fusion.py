"""Bimodal features: image and metadata side by side, weighed on the bank.

Side by side at the same weight, metadata has half the say even where it knows nothing of a new
place. Its weight is therefore chosen like any other hyperparameter, on the bank alone: by kNN, each
example classified by those of other spatial cells where places are known.
"""

from __future__ import annotations

import numpy as np

from satmip_jax.evaluation.knn import knn_predict
from satmip_jax.evaluation.metrics import accuracy

MAX_ASKED = 10_000  # examples of the bank that are classified
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
    groups: np.ndarray,
    asked: np.ndarray,
    *,
    num_classes: int,
    k: int = 5,
) -> float:
    """The weight of the metadata by which the bank's examples classify each other best.

    Args:
        image, metadata: standardised features of the bank, (n, d) and (n, e).
        labels: int (n,), -1 where unknown.
        groups: int (n,); an example is classified by those of other groups.
        asked: bool (n,), the examples to be classified; of more than `MAX_ASKED`, so many of them.
        num_classes, k: see `knn_predict`.

    Returns:
        One of `WEIGHTS`; of equally good ones the smallest. 1 where there is nothing to choose by.
    """
    rows = np.flatnonzero(asked & (labels >= 0))
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), MAX_ASKED)).astype(int))]
    sizes = np.unique(groups[labels >= 0], return_counts=True)[1]
    k = min(k, int(sizes.sum() - sizes.max(initial=0)))
    if not len(rows) or not k:
        return 1.0
    scores = []
    for weight in WEIGHTS:
        both = fuse(image, metadata, weight)
        predicted = knn_predict(
            both, labels, both[rows], k=k, num_classes=num_classes, groups=(groups, groups[rows])
        )
        scores.append(accuracy(labels[rows], predicted))
    return WEIGHTS[int(np.argmax(scores))]
