"""Precision of retrieval: the share of an image's nearest images that are of its class."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float64, Int, Int32

from satmip_jax.evaluation.knn import nearest

NONE = -1  # where fewer rows than asked for could be retrieved


def retrieve_classes(
    bank: Float[np.ndarray, "n d"],
    queries: Float[np.ndarray, "m d"],
    labels: Int[np.ndarray, " n"],
    own: Int[np.ndarray, " m"] | None = None,
    *,
    k: int,
) -> Int32[np.ndarray, "m {k}"]:
    """Return the classes of the k nearest rows of the bank by cosine, nearest first.

    Args:
        bank: features, standardized by the bank.
        queries: features, likewise.
        labels: of the bank; -1 for rows that may not be retrieved.
        own: row of the bank that is the query itself, and is not retrieved; None where bank and
            queries are different examples.
        k: number of rows; `NONE` stands where there are not as many.

    Example:
        >>> from satmip_jax.evaluation.precision import retrieve_classes
        >>> bank = np.array([[1, 0], [1, 0.1], [0, 1]], np.float32)
        >>> retrieve_classes(bank, bank[:1], np.array([4, 5, 6]), k=2)
        array([[4, 5]], dtype=int32)
        >>> retrieve_classes(bank, bank[:1], np.array([4, 5, 6]), np.array([0]), k=3)
        array([[ 5,  6, -1]], dtype=int32)
    """
    usable = labels >= 0
    available = int(usable.sum()) - (own is not None and bool(usable[own].any()))
    found = np.full((len(queries), k), NONE, np.int32)
    if (count := min(k, available)) > 0:
        groups = None if own is None else (np.arange(len(bank)), own)
        _, rows = nearest(bank, queries, count, usable=usable, groups=groups)
        found[:, :count] = labels[np.asarray(rows)]
    return found


def precisions(
    truth: Int[np.ndarray, " m"], retrieved: Int[np.ndarray, "m k"]
) -> Float64[np.ndarray, " m"]:
    """Return the share of the retrieved rows that are of the query's class.

    Args:
        truth: class of each query.
        retrieved: classes of `retrieve_classes`.

    Example:
        >>> from satmip_jax.evaluation.precision import precisions
        >>> precisions(np.array([4, 5]), np.array([[4, 5, 4, 4], [6, 5, -1, -1]]))
        array([0.75, 0.5 ])
    """
    counted = np.maximum((retrieved != NONE).sum(axis=1), 1)
    return np.asarray((retrieved == truth[:, None]).sum(axis=1) / counted)
