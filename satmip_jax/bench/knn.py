"""Throughput of kNN classification: chunked on the device, naive in numpy, and scikit-learn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from sklearn.neighbors import KNeighborsClassifier

from satmip_jax.bench.timing import Measurement, over_rounds, time_in_turn
from satmip_jax.evaluation.knn import knn_predict

CLASSES, K = 10, 5


def bench(banks: Sequence[int], *, queries: int, width: int, rounds: int) -> list[Measurement]:
    """Measure the classification of queries by banks of several sizes.

    Neighbours at equal distance up to rounding can change a prediction; the number of differing
    predictions is measured too.

    Args:
        banks: numbers of rows of the bank.
        queries: number of queries.
        width: width of the features.
        rounds: rounds of timing.
    """
    measurements = []
    for rows in banks:
        bank, labels, query_features = features(rows, queries, width)
        functions = classifiers(bank, labels, query_features)
        facts = {"bank": rows, "queries": queries, "width": width}
        seconds = time_in_turn(functions, rounds)
        expected = functions["numpy"]()
        for name, function in functions.items():
            rates = over_rounds([queries / second for second in seconds[name]])
            differing = int(np.sum(np.asarray(function()) != expected))
            measurements += [
                Measurement("knn", name, "throughput", unit="queries/s", facts=facts, **rates),
                Measurement(
                    "knn", name, "differing predictions", differing, "queries", facts=facts
                ),
            ]
    return measurements


def features(rows: int, queries: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw features of overlapping classes.

    Returns:
        Bank, float32 (rows, width); labels, int (rows,); queries, float32 (queries, width).
    """
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(CLASSES, width)).astype(np.float32) / 4

    def points(count: int) -> tuple[np.ndarray, np.ndarray]:
        labels = rng.integers(0, CLASSES, count)
        return centres[labels] + rng.normal(size=(count, width)).astype(np.float32), labels

    bank, labels = points(rows)
    return bank, labels, points(queries)[0]


def classifiers(
    bank: np.ndarray, labels: np.ndarray, queries: np.ndarray
) -> dict[str, Callable[[], Any]]:
    """Return the classifiers by name; each returns the predicted classes of the queries."""
    device_bank, device_queries = (jax.device_put(array) for array in (bank, queries))
    sklearn = KNeighborsClassifier(K, metric="cosine", algorithm="brute").fit(bank, labels)
    return {
        "satmip": lambda: knn_predict(
            device_bank, labels, device_queries, k=K, num_classes=CLASSES
        ),
        "numpy": lambda: naive(bank, labels, queries),
        "scikit-learn": lambda: sklearn.predict(queries),
    }


def naive(bank: np.ndarray, labels: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Classify by the full matrix of cosine similarities.

    Args:
        bank: features (rows, width).
        labels: classes of the bank, int (rows,).
        queries: features (queries, width).

    Returns:
        Predicted classes, int (queries,).
    """
    bank = bank / np.linalg.norm(bank, axis=1, keepdims=True)
    queries = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    nearest = np.argpartition(-(queries @ bank.T), K, axis=1)[:, :K]
    votes = labels[nearest][:, :, None] == np.arange(CLASSES)
    return votes.sum(axis=1).argmax(axis=1)
