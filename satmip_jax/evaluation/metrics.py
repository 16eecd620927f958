"""Accuracy, F1 and the confusion matrix of predicted classes; all scores are fractions, 0 to 1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray


class ClassScore(TypedDict):
    """One row of `per_class`: `n` examples, `predicted` how often it was the answer."""

    name: str
    n: int
    predicted: int
    precision: float
    recall: float
    f1: float


def accuracy(truth: ArrayLike, predicted: ArrayLike) -> float:
    """Fraction of equal classes, of integers (n,). ValueError for shapes that differ or n = 0."""
    truth, predicted = _classes(truth, predicted)
    return float(np.mean(truth == predicted))


def macro_f1(truth: ArrayLike, predicted: ArrayLike) -> float:
    """Mean of the F1 of the classes that occur in truth or prediction, of integers (n,).

    Equal to scikit-learn's `f1_score(truth, predicted, average="macro")`.

    Example:
      >>> macro_f1([0, 0, 1, 1], [0, 0, 0, 1])
      0.733...
    """
    truth, predicted = _classes(truth, predicted)
    matrix = confusion_matrix(truth, predicted, int(max(truth.max(), predicted.max())) + 1)
    occurrences = matrix.sum(axis=0) + matrix.sum(axis=1)
    occurs = occurrences > 0
    return float(np.mean(2 * np.diagonal(matrix)[occurs] / occurrences[occurs]))


def confusion_matrix(truth: ArrayLike, predicted: ArrayLike, num_classes: int) -> NDArray[np.int64]:
    """Counts (num_classes, num_classes) of true class (row) and predicted class (column)."""
    truth, predicted = _classes(truth, predicted)
    largest = int(max(truth.max(), predicted.max()))
    if largest >= num_classes:
        raise ValueError(f"class {largest} does not exist: there are {num_classes} classes")
    pairs = np.bincount(truth * num_classes + predicted, minlength=num_classes**2)
    return pairs.reshape(num_classes, num_classes)


def per_class(truth: ArrayLike, predicted: ArrayLike, classes: Sequence[str]) -> list[ClassScore]:
    """Precision, recall and F1 of every class, in the order of `classes`; 0 where undefined."""
    matrix = confusion_matrix(truth, predicted, len(classes))
    right = np.diagonal(matrix)
    true, answered = matrix.sum(axis=1), matrix.sum(axis=0)

    def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
        return numerator / np.maximum(denominator, 1)

    precision, recall, f1 = (
        ratio(right, answered),
        ratio(right, true),
        ratio(2 * right, true + answered),
    )
    return [
        ClassScore(
            name=name,
            n=int(true[i]),
            predicted=int(answered[i]),
            precision=float(precision[i]),
            recall=float(recall[i]),
            f1=float(f1[i]),
        )
        for i, name in enumerate(classes)
    ]


def _classes(truth: ArrayLike, predicted: ArrayLike) -> tuple[NDArray, NDArray]:
    truth, predicted = np.asarray(truth), np.asarray(predicted)
    if truth.shape != predicted.shape or truth.ndim != 1 or not len(truth):
        raise ValueError(
            f"truth is of shape {truth.shape} and predicted of {predicted.shape}: "
            "expected (n,) both, with n above 0"
        )
    for name, classes in (("truth", truth), ("predicted", predicted)):
        if not np.issubdtype(classes.dtype, np.integer) or classes.min() < 0:
            raise ValueError(
                f"{name} is {classes.dtype} from {classes.min()}: expected classes 0, 1, ... "
                "(leave out what is unlabelled)"
            )
    return truth.astype(np.int64), predicted.astype(np.int64)
