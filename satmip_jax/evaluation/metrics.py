"""Accuracy, F1 and the confusion matrix of predicted classes; all scores are fractions, 0 to 1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypedDict

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float, Int, Int64
from numpy.typing import NDArray

Classes = Int[ArrayLike, " n"] | Sequence[int]  # from 0; the same n for truth and prediction

DRAWN = 2**22  # numbers of `bootstrap` held at a time


class ClassScore(TypedDict):
    """One row of `per_class`: `n` examples are of the class, `predicted` were assigned to it."""

    name: str
    n: int
    predicted: int
    precision: float
    recall: float
    f1: float


def accuracy(truth: Classes, predicted: Classes) -> float:
    """Return the fraction of equal classes.

    Raises:
        ValueError: shapes differ, or n = 0.

    Example:
        >>> from satmip_jax.evaluation.metrics import accuracy
        >>> accuracy([0, 0, 1, 1], [0, 0, 0, 1])
        0.75
    """
    true, answered = _check_classes(truth, predicted)
    return float(np.mean(true == answered))


def most_frequent(labels: Classes) -> int:
    """Return the most frequent class; the first of several.

    Args:
        labels: classes, at least one from 0; those below are left out.

    Example:
        >>> from satmip_jax.evaluation.metrics import most_frequent
        >>> most_frequent([-1, -1, -1, 2, 2, 0])
        2
    """
    known = np.asarray(labels)
    return int(np.bincount(known[known >= 0]).argmax())


def macro_f1(truth: Classes, predicted: Classes) -> float:
    """Return the mean F1 of the classes that occur in truth or prediction.

    Equal to scikit-learn's `f1_score(truth, predicted, average="macro")`.

    Raises:
        ValueError: shapes differ, or n = 0.

    Example:
        >>> from satmip_jax.evaluation.metrics import macro_f1
        >>> macro_f1([0, 0, 1, 1], [0, 0, 0, 1])
        0.733...
    """
    occurs, f1 = _f1_by_class(truth, predicted)
    return float(np.mean(f1[occurs]))


def challenge_f1(truth: Classes, predicted: Classes, weights: Sequence[float]) -> float:
    """Return the weighted mean F1 of the classes that occur in truth or prediction.

    The score of the fMoW challenge, with `sources.fmow.CHALLENGE_WEIGHTS`. The challenge predicts
    an object once, from all of its images, so the score of single images is not comparable with it.

    Args:
        truth: true classes.
        predicted: predicted classes.
        weights: of each class, 0 or more. If all that occur have weight 0, the score is 0.

    Raises:
        ValueError: shapes differ, n = 0, or classes or weights are out of range.

    Source: the challenge's offline tester (Topcoder, FmowVisualizer 1.0, September 2017).

    Example:
        >>> from satmip_jax.evaluation.metrics import challenge_f1
        >>> round(challenge_f1([0, 0, 1, 1], [0, 0, 0, 1], weights=[1.4, 0.6]), 4)
        0.76
    """
    occurs, f1 = _f1_by_class(truth, predicted)
    weight = _weights(weights, len(f1) - 1)[: len(f1)] * occurs
    return float(weight @ f1 / weight.sum()) if weight.any() else 0.0


def bootstrap(
    truth: Classes,
    predicted: Classes,
    metric: Literal["accuracy", "macro_f1", "challenge_f1"],
    *,
    weights: Sequence[float] = (),
    samples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> tuple[float, float]:
    """Return the interval of a score over bootstrap samples of the examples (percentiles).

    It shows how far the score could move with other examples of the same kind. It does not cover
    another seed of training, and is too narrow where examples resemble each other, as neighbouring
    images do. The F1 of a sample is that of the classes that occur in it.

    The counts of each pair of true and predicted class in a sample are multinomial: they are drawn
    at once, not example by example.

    Args:
        truth: true classes.
        predicted: predicted classes.
        metric: the name of one of the functions above.
        weights: for "challenge_f1", see there.
        samples: number of samples; the ends of the interval are uncertain by a few percent of its
            width.
        seed: the interval depends on the arguments alone.
        confidence: fraction of the samples inside the interval.

    Returns:
        (low, high).

    Raises:
        ValueError: shapes differ, n = 0, or an option is out of range.

    Example:
        >>> from satmip_jax.evaluation.metrics import bootstrap
        >>> bootstrap([0] * 50 + [1] * 50, [0] * 80 + [1] * 20, "accuracy")
        (0.61, 0.79)
    """
    truth, predicted = _check_classes(truth, predicted)
    if metric not in ("accuracy", "macro_f1", "challenge_f1"):
        raise ValueError(f"metric is {metric!r}: expected 'accuracy', 'macro_f1' or 'challenge_f1'")
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
        correct = np.where(true == answered, drawn, 0)
        if metric == "accuracy":
            scores.append(correct.sum(axis=1) / n)
            continue
        occurrences = _sum_by(true, drawn, len(classes)) + _sum_by(answered, drawn, len(classes))
        f1 = 2 * _sum_by(true, correct, len(classes)) / np.maximum(occurrences, 1)
        total = (occurrences > 0) @ weight
        scores.append(f1 @ weight / np.where(total > 0, total, 1))
    low, high = np.quantile(np.concatenate(scores), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def mean_interval(
    values: Float[ArrayLike, " n"],
    *,
    samples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> tuple[float, float]:
    """Return the interval of a mean over bootstrap samples of the examples, see `bootstrap`.

    Args:
        values: one per example, of few different ones.
        samples: see `bootstrap`.
        seed: see `bootstrap`.
        confidence: see `bootstrap`.

    Example:
        >>> from satmip_jax.evaluation.metrics import mean_interval
        >>> np.round(mean_interval(np.repeat([0.0, 1.0], 50)), 2).tolist()
        [0.4, 0.6]
    """
    levels, counts = np.unique(np.asarray(values, np.float64), return_counts=True)
    n = counts.sum()
    drawn = np.random.default_rng(seed).multinomial(n, counts / n, size=samples)
    ends = [(1 - confidence) / 2, (1 + confidence) / 2]
    low, high = np.quantile(drawn @ levels / n, ends)
    return float(low), float(high)


def confusion_matrix(
    truth: Classes, predicted: Classes, num_classes: int
) -> Int64[np.ndarray, "{num_classes} {num_classes}"]:
    """Return the number of examples by true class (row) and predicted class (column).

    Raises:
        ValueError: shapes differ, n = 0, or a class is `num_classes` or more.

    Example:
        >>> from satmip_jax.evaluation.metrics import confusion_matrix
        >>> confusion_matrix([0, 0, 1, 1], [0, 0, 0, 1], 2)
        array([[2, 0],
               [1, 1]])
    """
    truth, predicted = _check_classes(truth, predicted)
    largest = int(max(truth.max(), predicted.max()))
    if largest >= num_classes:
        raise ValueError(f"class {largest} does not exist: there are {num_classes} classes")
    pairs = np.bincount(truth * num_classes + predicted, minlength=num_classes**2)
    return pairs.reshape(num_classes, num_classes)


def per_class(truth: Classes, predicted: Classes, classes: Sequence[str]) -> list[ClassScore]:
    """Return precision, recall and F1 of every class; 0 where undefined.

    Args:
        truth: true classes.
        predicted: predicted classes.
        classes: their names, in the order of the numbers.

    Raises:
        ValueError: shapes differ, n = 0, or a class has no name.

    Example:
        >>> from satmip_jax.evaluation.metrics import per_class
        >>> per_class([0, 0, 1, 1], [0, 0, 0, 1], ["land", "sea"])[1]["recall"]
        0.5
    """
    matrix = confusion_matrix(truth, predicted, len(classes))
    correct = np.diagonal(matrix)
    true, answered = matrix.sum(axis=1), matrix.sum(axis=0)

    def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
        return numerator / np.maximum(denominator, 1)

    precision, recall, f1 = (
        ratio(correct, answered),
        ratio(correct, true),
        ratio(2 * correct, true + answered),
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


def _f1_by_class(
    truth: Classes, predicted: Classes
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Return whether each class from 0 to the largest occurs, and its F1."""
    truth, predicted = _check_classes(truth, predicted)
    matrix = confusion_matrix(truth, predicted, int(max(truth.max(), predicted.max())) + 1)
    occurrences = matrix.sum(axis=0) + matrix.sum(axis=1)
    return occurrences > 0, 2 * np.diagonal(matrix) / np.maximum(occurrences, 1)


def _weights(weights: Sequence[float], last: int) -> NDArray[np.float64]:
    """Return the weights as an array, checked to cover the classes from 0 to `last`."""
    if not all(np.isfinite(weight) and weight >= 0 for weight in weights):
        raise ValueError(f"weights are {list(weights)}: expected numbers of 0 or more")
    if len(weights) <= last:
        raise ValueError(f"class {last} has no weight: there are {len(weights)} weights")
    return np.asarray(weights, np.float64)


def _sum_by(group: NDArray[Any], numbers: NDArray[Any], groups: int) -> NDArray[Any]:
    """Sum the columns of each group: (m, n) by (n,) -> (m, groups)."""
    order = np.argsort(group, kind="stable")
    first = np.flatnonzero(np.diff(group[order], prepend=-1))
    sums = np.zeros((len(numbers), groups), numbers.dtype)
    sums[:, group[order][first]] = np.add.reduceat(numbers[:, order], first, axis=1)
    return sums


def _check_classes(truth: Any, predicted: Any) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return both as arrays, or raise ValueError unless they are classes of the same shape."""
    truth, predicted = np.asarray(truth), np.asarray(predicted)
    if truth.shape != predicted.shape or truth.ndim != 1 or not len(truth):
        raise ValueError(
            f"truth is of shape {truth.shape} and predicted of {predicted.shape}: "
            "expected (n,) for both, with n above 0"
        )
    for name, classes in (("truth", truth), ("predicted", predicted)):
        if not np.issubdtype(classes.dtype, np.integer) or classes.min() < 0:
            raise ValueError(
                f"{name} is {classes.dtype} from {classes.min()}: expected classes 0, 1, ... "
                "(leave out unlabelled examples)"
            )
    return truth.astype(np.int64), predicted.astype(np.int64)
