"""Linear probe: multinomial logistic regression of features, solved on the device.

For every strength of the penalty the minimum over coefficients W (classes, d) and intercepts b of

    mean over rows of the cross-entropy of softmax(W x + b)  +  strength / 2 * |W|^2

where the mean is weighted if rows have weights. Intercepts are not penalised. It is the objective
of scikit-learn's `LogisticRegression(C)` divided by C n, with C = 1 / (strength n), n the sum of
the weights. Because it is a mean, a strength chosen on some of the rows fits all of them as well.
(Of two classes scikit-learn fits one vector, the difference of our two: C = 2 / (strength n).)

How it is solved: `logistic`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike
from numpy.typing import NDArray

from satmip_jax.evaluation import logistic_solver
from satmip_jax.evaluation.knn import FeaturesError, check_features, check_labels

STRENGTHS = tuple(float(x) for x in 10 ** np.linspace(-5.5, 0, 12))  # for variance 1
TOLERANCE = 3e-4
MAX_ITER = 2000
# Strengths solved at a time. Under vmap those that need few iterations wait for the others: all
# twelve of 18,908 x 128 features at once take 91 s of CPU time, four at a time 26 s.
TOGETHER = 4
TOO_LARGE = "the features are too large for float32: standardise them"
MAX_SCORES = 2**26  # scores (strengths, classes, n) held at a time, unless one strength has more

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fit:
    """Solutions for s strengths.

    Attributes:
      strengths: float32 (s,), as given.
      coefficients: float32 (s, classes, d); 0 for a class that has no rows.
      intercepts: float32 (s, classes); -infinity for a class that has no rows: it is never
        predicted.
      objective: float32 (s,), the minimum.
      iterations: int32 (s,).
      converged: bool (s,), False where it was stopped by `max_iter` or by rounding.
    """

    strengths: NDArray[np.float32]
    coefficients: Array
    intercepts: Array
    objective: NDArray[np.float32]
    iterations: NDArray[np.int32]
    converged: NDArray[np.bool_]


@dataclass(frozen=True)
class Choice:
    """How `linear_predict` chose: held-out accuracy (s,) of each strength, and the one taken."""

    strengths: tuple[float, ...]
    held_out_accuracy: NDArray[np.float64]
    strength: float
    converged: bool


def fit(
    features: ArrayLike,
    labels: ArrayLike,
    *,
    num_classes: int,
    strengths: Sequence[float],
    weights: ArrayLike | None = None,
    tolerance: float = TOLERANCE,
    max_iter: int = MAX_ITER,
) -> Fit:
    """Minimise the objective above for each of the strengths.

    Features should be standardised: a penalty on W only means the same for features of the same
    scale, and float32 tells no features of scale 1 apart beside others of scale 1e6. Strengths are
    solved `TOGETHER` under vmap. Memory: a copy of the features, and some five arrays of scores,
    each of at most `MAX_SCORES` numbers or those of one strength, (classes, n).

    Args:
      features: (n, d), computed with in float32. Rows may be sharded over devices.
      labels: (n,) integers from 0; -1 is unlabelled: such rows have no influence.
      num_classes: labels are 0 to num_classes - 1.
      strengths: s numbers above 0.
      weights: (n,) of the rows, 0 or more; 0 leaves a row out. 1 by default.
      tolerance: stops where |g| <= tolerance * sqrt(objective), with g the gradient in the scaled
        coordinates, in which |g|^2 / 2 is about what a Newton step still gains. With the default
        the objective is within 2e-4 of its minimum (measured; relative).
      max_iter: stops there at the latest, which is logged.

    Raises:
      FeaturesError: shapes that do not fit, features that are not finite or too large for float32,
        labels or weights out of range, labelled rows of fewer than two classes.

    Example:
      >>> probe = fit(train, train_labels, num_classes=10, strengths=[1e-4, 1e-2])
      >>> probe.coefficients.shape
      (2, 10, 128)
    """
    features = check_features("features", features)
    used = np.where(check_labels(labels, len(features), num_classes), 1, 0).astype(np.float32)
    if weights is not None:
        given = np.asarray(weights, np.float32)
        if given.shape != used.shape or not (np.isfinite(given) & (given >= 0)).all():
            raise FeaturesError(
                f"weights are {given.shape} from {given.min(initial=0)} to "
                f"{given.max(initial=0)}: expected {used.shape}, finite, 0 or more"
            )
        used = used * given
    if not len(strengths) or not all(np.isfinite(x) and x > 0 for x in strengths):
        raise FeaturesError(f"strengths are {list(strengths)}: expected numbers above 0")
    labels = np.asarray(labels).astype(np.int32)
    if len(classes := np.unique(labels[used > 0])) < 2:
        raise FeaturesError(
            f"of {len(used)} rows {int((used > 0).sum())} can be used, of {len(classes)} classes: "
            "logistic regression needs two classes"
        )
    order = np.argsort(strengths)[::-1]  # alike strengths need alike numbers of iterations
    together = min(TOGETHER, len(order), max(1, MAX_SCORES // (num_classes * len(used))))
    solved = logistic_solver.solve(
        features,
        labels,
        used,
        np.asarray(strengths, np.float32)[order],
        np.float32(tolerance),
        np.int32(max_iter),
        num_classes=num_classes,
        together=together,
    )
    coefficients, intercepts, *numbers = (x[np.argsort(order)] for x in solved)
    objective, iterations, converged = map(np.asarray, numbers)
    if not np.isfinite(objective).all():
        raise FeaturesError(TOO_LARGE)
    for i in np.flatnonzero(~converged).tolist():
        log.warning(
            "linear probe: strength %g did not converge in %d iterations, its objective is %g",
            strengths[i],
            iterations[i],
            objective[i],
        )
    return Fit(
        np.asarray(strengths, np.float32),
        coefficients,
        intercepts,
        objective,
        iterations,
        converged,
    )


def predict(probe: Fit, queries: ArrayLike) -> Array:
    """The likeliest class of each query (m, d) by each of the s strengths: int32 (s, m)."""
    queries = check_features("queries", queries)
    _check_width("probe", probe.coefficients, queries)
    return _predict(probe.coefficients, probe.intercepts, queries)


def linear_predict(
    bank: ArrayLike,
    labels: ArrayLike,
    queries: ArrayLike,
    *,
    num_classes: int,
    held_out: ArrayLike,
    strengths: Sequence[float] = STRENGTHS,
) -> tuple[Array, Choice]:
    """Classify by a linear probe whose strength is chosen on the held-out rows of the bank.

    It is fitted to the other rows with every strength; the one that classifies most of the held-out
    rows rightly (of equals the strongest) is fitted to all rows, and classifies the queries.
    Features should be standardised. Bank and queries are divided by one number here, which gives
    the bank's features a variance of 1 on average, so that strengths do not depend on their units.

    Args:
      bank: (n, d) features that have labels.
      labels: (n,) integers; -1 is unlabelled: such rows are ignored, and their number is logged.
      queries: (m, d) features to classify. Bank and queries may be sharded over devices.
      num_classes: labels are 0 to num_classes - 1.
      held_out: bool (n,), see `held_out_rows`.
      strengths: of the penalty, see `fit`.

    Returns:
      int32 (m,), and the `Choice`.

    Raises:
      FeaturesError: as `fit`; no labelled row is held out, or those that are not have one class.

    Example:
      >>> held_out = held_out_rows(train_labels)
      >>> predicted, choice = linear_predict(
      ...     train, train_labels, test, num_classes=10, held_out=held_out)
      >>> accuracy(test_labels, predicted)
    """
    bank, queries = check_features("bank", bank), check_features("queries", queries)
    _check_width("bank", bank, queries)
    labels, chosen_on = np.asarray(labels), np.asarray(held_out)
    if chosen_on.shape != (len(bank),) or chosen_on.dtype != bool:
        raise FeaturesError(
            f"held_out is {chosen_on.dtype} {chosen_on.shape}: expected bool ({len(bank)},)"
        )
    used = check_labels(labels, len(bank), num_classes)
    if not (chosen_on & used).any():
        raise FeaturesError("no labelled row is held out: the strength is chosen on such rows")
    if not np.isfinite(unit := float(_unit(bank, used))):
        raise FeaturesError(TOO_LARGE)
    bank, queries = bank.astype(jnp.float32) / unit, queries.astype(jnp.float32) / unit
    # Rows are left out by weight, so that shapes and shardings stay.
    known = np.where(used, labels, 0)
    probe = fit(
        bank,
        known,
        num_classes=num_classes,
        strengths=strengths,
        weights=used & ~chosen_on,
    )
    right = np.asarray(predict(probe, bank)) == labels
    accuracies = right[:, chosen_on & used].mean(axis=1)
    best = max(range(len(strengths)), key=lambda i: (accuracies[i], strengths[i]))
    log.info(
        "linear probe: strength %g of %g to %g, right of %d held-out rows: %.1f %%",
        strengths[best],
        min(strengths),
        max(strengths),
        (chosen_on & used).sum(),
        100 * accuracies[best],
    )
    final = fit(bank, known, num_classes=num_classes, strengths=[strengths[best]], weights=used)
    choice = Choice(tuple(strengths), accuracies, strengths[best], bool(final.converged[0]))
    return predict(final, queries)[0], choice


def linear_classify(
    bank: np.ndarray,
    queries: np.ndarray,
    labels: np.ndarray,
    held_out: np.ndarray,
    num_classes: int,
) -> np.ndarray:
    """Classify as a protocol, see `Protocol.classify`."""
    predicted, _ = linear_predict(bank, labels, queries, num_classes=num_classes, held_out=held_out)
    return np.asarray(predicted)


def _check_width(name: str, known: Array, queries: Array) -> None:
    if known.shape[-1] != queries.shape[-1]:
        raise FeaturesError(
            f"{name} has {known.shape[-1]} features a row and queries {queries.shape[-1]}: "
            "take both from the same encoder"
        )


@jax.jit
def _predict(coefficients: Array, intercepts: Array, queries: Array) -> Array:
    queries = queries.astype(jnp.float32)

    def one(parameters: tuple[Array, Array]) -> Array:
        # (m, d) . (classes, d) -> (m, classes)
        scores = jnp.einsum("md,kd->mk", queries, parameters[0], precision=lax.Precision.HIGHEST)
        return jnp.argmax(scores + parameters[1][None], axis=1).astype(jnp.int32)

    return lax.map(one, (coefficients, intercepts))


@jax.jit
def _unit(features: Array, used: Array) -> Array:
    """The root of the features' mean variance over the rows used; 1 where all are constant."""
    features, used = features.astype(jnp.float32), used[:, None]
    variance = jnp.mean(jnp.var(features, axis=0, where=used))
    return jnp.sqrt(jnp.where(variance > 0, variance, 1))


def held_out_rows(
    labels: ArrayLike,
    *,
    fraction: float = 0.2,
    groups: ArrayLike | None = None,
    seed: int = 0,
) -> NDArray[np.bool_]:
    """Choose labelled rows to be held out, at random, the same fraction of every class.

    Args:
      labels: int (n,); -1 is unlabelled and never chosen.
      fraction: of the rows of each class, up to rounding; no class is held out as a whole.
      groups: int (n,), such as the cells of a map: a group is chosen as a whole or not at all, so
        that the fractions are only met as closely as groups allow. -1 is a group of its own.
      seed: of the choice, which depends on the arguments alone.

    Returns:
      bool (n,).

    Raises:
      FeaturesError: shapes that differ, a fraction outside of 0 to 1, or rows of which no part can
        be held out.
    """
    labels = np.asarray(labels)
    groups = np.full(labels.shape, -1) if groups is None else np.asarray(groups)
    if labels.ndim != 1 or labels.shape != groups.shape:
        raise FeaturesError(f"labels are {labels.shape} and groups {groups.shape}: expected (n,)")
    if not 0 < fraction < 1:
        raise FeaturesError(f"fraction is {fraction}: expected a number between 0 and 1")
    rng = np.random.default_rng(seed)
    held_out = np.zeros(len(labels), bool)
    single = (labels >= 0) & (groups < 0)
    held_out[single] = _some_rows(labels[single], fraction, rng)
    grouped = (labels >= 0) & (groups >= 0)
    held_out[grouped] = _some_groups(labels[grouped], groups[grouped], fraction, rng)
    if not held_out.any():
        raise FeaturesError(
            f"of {int((labels >= 0).sum())} labelled rows none can be held out at a fraction of "
            f"{fraction}: there are too few rows of a class, or all are in one group"
        )
    return held_out


def _some_rows(labels: NDArray, fraction: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Every 1/fraction-th row of the rows in order of class, and at random within a class."""
    order = np.lexsort((rng.random(len(labels)), labels))
    place = np.floor((np.arange(len(labels) + 1) + rng.random()) * fraction)
    chosen = np.zeros(len(labels), bool)
    chosen[order] = np.diff(place) > 0
    names, first = np.unique(labels[order], return_index=True)
    chosen[order[first[~np.isin(names, labels[~chosen])]]] = False
    return chosen


def _some_groups(
    labels: NDArray, groups: NDArray, fraction: float, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Groups in random order, each taken if it brings the classes nearer to their fractions."""
    names, group = np.unique(groups, return_inverse=True)
    classes, label = np.unique(labels, return_inverse=True)
    counts = np.zeros((len(names), len(classes)), np.int32)
    np.add.at(counts, (group, label), 1)
    total = counts.sum(axis=0)
    missing = fraction * total
    taken = np.zeros(len(names), bool)
    left = total.copy()
    for i in rng.permutation(len(names)):
        nearer = np.sum(((missing - counts[i]) ** 2 - missing**2) / total) < 0
        if nearer and (left > counts[i]).all():
            taken[i] = True
            missing, left = missing - counts[i], left - counts[i]
    return taken[group]
