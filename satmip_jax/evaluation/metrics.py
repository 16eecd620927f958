"""Accuracy, F1 and the confusion matrix of predicted classes; all scores are fractions, 0 to 1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

DRAWN = 2**22  # numbers of `bootstrap` held at a time


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
    occurs, f1 = _f1_by_class(truth, predicted)
    return float(np.mean(f1[occurs]))


def challenge_f1(truth: ArrayLike, predicted: ArrayLike, weights: Sequence[float]) -> float:
    """Mean of the F1 of the classes that occur in truth or prediction, weighted by class.

    The score of the fMoW challenge, with `sources.fmow.CHALLENGE_WEIGHTS`. The challenge predicts
    an object, once from all of its images; the score of single images is not comparable with it.

    Args:
      truth, predicted: integers (n,).
      weights: of each class, 0 or more. If all that occur weigh 0, so does the score.

    Raises:
      ValueError: shapes that differ, n = 0, classes or weights out of range.

    Source: the challenge's offline tester (Topcoder, FmowVisualizer 1.0, September 2017).

    Example:
      >>> weights = [CHALLENGE_WEIGHTS[name] for name in schema.classes]
      >>> challenge_f1(truth, predicted, weights)
    """
    occurs, f1 = _f1_by_class(truth, predicted)
    weight = _weights(weights, len(f1) - 1)[: len(f1)] * occurs
    return float(weight @ f1 / weight.sum()) if weight.any() else 0.0


def bootstrap(
    truth: ArrayLike,
    predicted: ArrayLike,
    metric: Literal["accuracy", "macro_f1", "challenge_f1"],
    *,
    weights: Sequence[float] = (),
    samples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> tuple[float, float]:
    """Interval of a score over samples of the examples, drawn with replacement (percentiles).

    It says how far the score could move with other examples of the kind; not with another seed of
    training, and too little where examples are alike, as neighbouring images are. The sampled F1
    is that of the classes that occur in the sample.

    What a sample holds of each pair of true and predicted class is multinomial: it is drawn at
    once, and examples are never looked at one by one.

    Args:
      truth, predicted: integers (n,).
      metric: the name of one of the functions above.
      weights: of "challenge_f1", see there.
      samples: how many; the ends of the interval are uncertain by a few percent of its width.
      seed: the interval depends on the arguments alone.
      confidence: part of the samples inside the interval.

    Returns:
      (low, high).

    Raises:
      ValueError: shapes that differ, n = 0, or an option out of range.

    Example:
      >>> bootstrap(truth, predicted, "accuracy")
      (0.803, 0.827)
    """
    truth, predicted = _classes(truth, predicted)
    if metric not in ("accuracy", "macro_f1", "challenge_f1"):
        raise ValueError(f"metric is {metric!r}: 'accuracy', 'macro_f1' or 'challenge_f1'")
    if samples < 1 or not 0 < confidence < 1:
        raise ValueError(
            f"{samples} samples and a confidence of {confidence}: expected 1 or more, and a "
            "number between 0 and 1"
        )
    n = len(truth)
    classes, codes = np.unique(np.concatenate([truth, predicted]), return_inverse=True)
    pairs, counts = np.unique(codes[:n] * len(classes) + codes[n:], return_counts=True)
    true, answered = np.divmod(pairs, len(classes))
    weight = np.ones(len(classes))
    if metric == "challenge_f1":
        weight = _weights(weights, int(classes[-1]))[classes]
    rng, scores = np.random.default_rng(seed), []
    step = max(1, DRAWN // len(pairs))
    for start in range(0, samples, step):
        drawn = rng.multinomial(n, counts / n, size=min(step, samples - start))  # (., pairs)
        right = np.where(true == answered, drawn, 0)
        if metric == "accuracy":
            scores.append(right.sum(axis=1) / n)
            continue
        occurrences = _sum_by(true, drawn, len(classes)) + _sum_by(answered, drawn, len(classes))
        f1 = 2 * _sum_by(true, right, len(classes)) / np.maximum(occurrences, 1)
        total = (occurrences > 0) @ weight
        scores.append(f1 @ weight / np.where(total > 0, total, 1))
    low, high = np.quantile(np.concatenate(scores), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


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


def _f1_by_class(truth: ArrayLike, predicted: ArrayLike) -> tuple[NDArray, NDArray]:
    """Which classes occur in truth or prediction, bool, and their F1; of 0 to the largest."""
    truth, predicted = _classes(truth, predicted)
    matrix = confusion_matrix(truth, predicted, int(max(truth.max(), predicted.max())) + 1)
    occurrences = matrix.sum(axis=0) + matrix.sum(axis=1)
    return occurrences > 0, 2 * np.diagonal(matrix) / np.maximum(occurrences, 1)


def _weights(weights: Sequence[float], last: int) -> NDArray[np.float64]:
    """Weights by class, checked, of the classes from 0 to `last` at least."""
    if not all(np.isfinite(weight) and weight >= 0 for weight in weights):
        raise ValueError(f"weights are {list(weights)}: expected numbers of 0 or more")
    if len(weights) <= last:
        raise ValueError(f"class {last} has no weight: there are {len(weights)} weights")
    return np.asarray(weights, np.float64)


def _sum_by(group: NDArray, numbers: NDArray, groups: int) -> NDArray:
    """Sums of the columns of each group: (m, n) by (n,) -> (m, groups)."""
    order = np.argsort(group, kind="stable")
    first = np.flatnonzero(np.diff(group[order], prepend=-1))
    sums = np.zeros((len(numbers), groups), numbers.dtype)
    sums[:, group[order][first]] = np.add.reduceat(numbers[:, order], first, axis=1)
    return sums


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
