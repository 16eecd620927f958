"""kNN classification: on the device in chunks, by the formula in numpy, and scikit-learn's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from sklearn.neighbors import KNeighborsClassifier

from satmip_jax.bench.timing import Measurement, in_turn, spread
from satmip_jax.evaluation.knn import knn_predict

CLASSES, K = 10, 5


def bench(banks: Sequence[int], *, queries: int, width: int, rounds: int) -> list[Measurement]:
    """Measure the classification of `queries` features of `width` numbers by banks of each size.

    Where two neighbours are equally near but for rounding, an answer may differ; how many do is a
    metric of its own.
    """
    found = []
    for rows in banks:
        bank, labels, asked = features(rows, queries, width)
        functions = classifiers(bank, labels, asked)
        facts = {"bank": rows, "queries": queries, "width": width}
        seconds = in_turn(functions, rounds)
        expected = functions["numpy"]()
        for name, function in functions.items():
            rates = [queries / second for second in seconds[name]]
            differing = int(np.sum(np.asarray(function()) != expected))
            found += [
                Measurement("knn", name, "rate", unit="queries/s", facts=facts, **spread(rates)),
                Measurement("knn", name, "other answers", differing, "queries", facts=facts),
            ]
    return found


def features(rows: int, queries: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(bank, labels, queries): clouds of points that lie close enough to be confused."""
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
    """Name -> the classes of the queries."""
    on_device = [jax.device_put(array) for array in (bank, queries)]
    theirs = KNeighborsClassifier(K, metric="cosine", algorithm="brute").fit(bank, labels)
    return {
        "satmip": lambda: knn_predict(on_device[0], labels, on_device[1], k=K, num_classes=CLASSES),
        "numpy": lambda: naive(bank, labels, queries),
        "scikit-learn": lambda: theirs.predict(queries),
    }


def naive(bank: np.ndarray, labels: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """The formula as written, with the matrix of all cosines."""
    bank = bank / np.linalg.norm(bank, axis=1, keepdims=True)
    queries = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    nearest = np.argpartition(-(queries @ bank.T), K, axis=1)[:, :K]
    votes = labels[nearest][:, :, None] == np.arange(CLASSES)
    return votes.sum(axis=1).argmax(axis=1)
