"""Linear probe: multinomial logistic regression of features, solved on the device.

For each strength of the penalty the probe minimizes, over coefficients W (classes, d) and
intercepts b,

    mean over rows of the cross-entropy of softmax(W x + b)  +  strength / 2 * |W|^2

The mean is weighted if rows have weights, and intercepts are not penalized. This is the objective
of scikit-learn's `LogisticRegression(C)` divided by C n, with C = 1 / (strength n) and n the sum of
the weights. As it is a mean, a strength chosen on a part of the rows fits all of them as well. (For
two classes scikit-learn fits one vector, the difference of our two: C = 2 / (strength n).)

`logistic_solver` describes how it is solved.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Float32, Float64, Int, Int32
from numpy.typing import NDArray

from satmip_jax.evaluation import logistic_solver
from satmip_jax.evaluation.knn import FeaturesError, check_features, check_labels

STRENGTHS = tuple(float(x) for x in 10 ** np.linspace(-5.5, 0, 12))  # for variance 1
TOLERANCE = 1e-3
MAX_ITER = 2000
TOO_LARGE = "the features are too large for float32: standardize them"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fit:
    """Solutions for s strengths.

    Attributes:
        strengths: as given.
        coefficients: 0 for a class without rows.
        intercepts: -infinity for a class without rows, so it is never predicted.
        objective: the minimum.
        iterations: of the solver.
        converged: False where `max_iter` or rounding stopped the solver.
    """

    strengths: Float32[np.ndarray, " s"]
    coefficients: Float32[Array, "s classes d"]
    intercepts: Float32[Array, "s classes"]
    objective: Float32[np.ndarray, " s"]
    iterations: Int32[np.ndarray, " s"]
    converged: Bool[np.ndarray, " s"]


@dataclass(frozen=True)
class Choice:
    """The strength that `linear_predict` chose, and why.

    Attributes:
        strengths: the candidates.
        held_out_accuracy: of each candidate, a fraction.
        strength: the chosen one.
        converged: whether the solver converged for it, on all rows.
    """

    strengths: tuple[float, ...]
    held_out_accuracy: Float64[np.ndarray, " s"]
    strength: float
    converged: bool


def fit(
    features: Float[ArrayLike, "n d"],
    labels: Int[ArrayLike, " n"],
    *,
    num_classes: int,
    strengths: Sequence[float],
    weights: Float[ArrayLike, " n"] | Int[ArrayLike, " n"] | Bool[ArrayLike, " n"] | None = None,
    tolerance: float = TOLERANCE,
    max_iter: int = MAX_ITER,
    start: tuple[Float32[Array, "classes d"], Float32[Array, " classes"]] | None = None,
) -> Fit:
    """Minimize the objective of the linear probe for each strength of the penalty.

    Features should be standardized: a penalty on W means the same only for features of the same
    scale, and float32 loses features of scale 1 beside others of scale 1e6. Strengths are solved
    one after the other. Memory: three copies of the features, and about five arrays (n, classes).

    Args:
        features: computed with in float32; rows may be sharded over devices.
        labels: -1 is unlabelled: such rows have no influence.
        num_classes: labels are 0 to num_classes - 1.
        strengths: numbers above 0.
        weights: of the rows, 0 or more; 0 leaves a row out. 1 by default.
        tolerance: stop where |g| <= tolerance * sqrt(objective), with g the gradient in the scaled
            coordinates, in which |g|^2 / 2 is about what a Newton step still gains. With the
            default the objective is within 2e-4 of its minimum (measured; relative).
        max_iter: largest number of iterations; reaching it is logged.
        start: coefficients and intercepts of a similar problem, to start from.

    Raises:
        FeaturesError: shapes do not match, features are not finite or too large for float32, labels
            or weights are out of range, or the labelled rows have fewer than two classes.

    Example:
        >>> from satmip_jax.evaluation.linear_probe import fit
        >>> features = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32)
        >>> probe = fit(features, np.arange(40) % 10, num_classes=10, strengths=[1e-4, 1e-2])
        >>> probe.coefficients.shape
        (2, 10, 8)
    """
    features = check_features("features", features)
    row_weights = check_labels(labels, len(features), num_classes).astype(np.float32)
    if weights is not None:
        factors = np.asarray(weights, np.float32)
        if factors.shape != row_weights.shape or not (np.isfinite(factors) & (factors >= 0)).all():
            raise FeaturesError(
                f"weights are {factors.shape} from {factors.min(initial=0)} to "
                f"{factors.max(initial=0)}: expected {row_weights.shape}, finite, 0 or more"
            )
        row_weights = row_weights * factors
    if not len(strengths) or not all(np.isfinite(x) and x > 0 for x in strengths):
        raise FeaturesError(f"strengths are {list(strengths)}: expected numbers above 0")
    labels = np.asarray(labels).astype(np.int32)
    if len(classes := np.unique(labels[row_weights > 0])) < 2:
        raise FeaturesError(
            f"of {len(row_weights)} rows {int((row_weights > 0).sum())} can be used, of "
            f"{len(classes)} classes: logistic regression needs two classes"
        )
    if len(features.devices()) == 1:  # else the rows stay where they are
        used = logistic_solver.rows_to_fit(row_weights)
        features, labels, row_weights = features[used], labels[used], row_weights[used]
    order = np.argsort(strengths)[::-1]  # each starts from the solutions of stronger ones
    solved = logistic_solver.solve(
        features,
        labels,
        row_weights,
        np.asarray(strengths, np.float32)[order],
        np.float32(tolerance),
        np.int32(max_iter),
        start,
        num_classes=num_classes,
    )
    coefficients, intercepts, *numbers = (x[np.argsort(order)] for x in solved)
    objective, iterations, converged = map(np.asarray, numbers)
    if not np.isfinite(objective).all():
        raise FeaturesError(TOO_LARGE)
    for i in np.flatnonzero(~converged).tolist():
        log.warning(
            "linear probe: strength %g did not converge in %d iterations; its objective is %g",
            strengths[i],
            iterations[i],
            objective[i],
        )
    return Fit(
        np.asarray(strengths, np.float32),
        *(coefficients, intercepts, objective, iterations, converged),
    )


def predict(probe: Fit, queries: Float[ArrayLike, "m d"]) -> Int32[Array, "s m"]:
    """Return the most likely class of each query, for each of the s strengths.

    Args:
        probe: from `fit`.
        queries: features from the same encoder.

    Raises:
        FeaturesError: shapes do not match, or features are not finite.
    """
    queries = check_features("queries", queries)
    _check_width("probe", probe.coefficients, queries)
    return _predict(probe.coefficients, probe.intercepts, queries)


def linear_predict(
    bank: Float[ArrayLike, "n d"],
    labels: Int[ArrayLike, " n"],
    queries: Float[ArrayLike, "m d"],
    *,
    num_classes: int,
    held_out: Bool[ArrayLike, " n"],
    strengths: Sequence[float] = STRENGTHS,
) -> tuple[Int32[Array, " m"], Choice]:
    """Classify by a linear probe whose strength is chosen on the held-out rows of the bank.

    The probe is fitted to the other rows with every strength. The strength that classifies most of
    the held-out rows correctly (of equals the strongest) is fitted to all rows, and classifies the
    queries. Features should be standardized. Bank and queries are divided by one number, which
    gives the bank's features a mean variance of 1, so that strengths do not depend on their units.

    Args:
        bank: features that have labels; may be sharded over devices.
        labels: of the bank; -1 is unlabelled: such rows are ignored.
        queries: features to classify; may be sharded over devices.
        num_classes: labels are 0 to num_classes - 1.
        held_out: rows of the bank, see `held_out_rows`.
        strengths: of the penalty, see `fit`.

    Returns:
        The classes, and how the strength was chosen.

    Raises:
        FeaturesError: as for `fit`; no labelled row is held out, or the others have one class.

    Example:
        >>> from satmip_jax.evaluation.linear_probe import held_out_rows, linear_predict
        >>> labels = np.arange(60) % 3
        >>> bank = np.eye(3, dtype=np.float32)[labels]
        >>> predicted, choice = linear_predict(
        ...     bank, labels, bank[:4], num_classes=3, held_out=held_out_rows(labels))
        >>> np.asarray(predicted), choice.strength
        (array([0, 1, 2, 0], dtype=int32), 1.0)
    """
    bank, queries = check_features("bank", bank), check_features("queries", queries)
    _check_width("bank", bank, queries)
    labels, chosen_on = np.asarray(labels), np.asarray(held_out)
    if chosen_on.shape != (len(bank),) or chosen_on.dtype != bool:
        raise FeaturesError(
            f"held_out is {chosen_on.dtype} {chosen_on.shape}: expected bool ({len(bank)},)"
        )
    labelled = check_labels(labels, len(bank), num_classes)
    if not (chosen_on & labelled).any():
        raise FeaturesError("no labelled row is held out: the strength is chosen on such rows")
    if not np.isfinite(unit := float(_unit(bank, labelled))):
        raise FeaturesError(TOO_LARGE)
    bank, queries = bank.astype(jnp.float32) / unit, queries.astype(jnp.float32) / unit
    # Rows are left out by weight, so that shapes and shardings do not change.
    targets = np.where(labelled, labels, 0)
    probe = fit(
        bank,
        targets,
        num_classes=num_classes,
        strengths=strengths,
        weights=labelled & ~chosen_on,
    )
    correct = np.asarray(predict(probe, bank)) == labels
    accuracies = correct[:, chosen_on & labelled].mean(axis=1)
    best = max(range(len(strengths)), key=lambda i: (accuracies[i], strengths[i]))
    log.debug(
        "linear probe: strength %g of %g to %g; accuracy on %d held-out rows: %.1f %%",
        strengths[best],
        min(strengths),
        max(strengths),
        (chosen_on & labelled).sum(),
        100 * accuracies[best],
    )
    final = fit(
        bank,
        targets,
        num_classes=num_classes,
        strengths=[strengths[best]],
        weights=labelled,
        start=(probe.coefficients[best], probe.intercepts[best]),
    )
    choice = Choice(tuple(strengths), accuracies, strengths[best], bool(final.converged[0]))
    return predict(final, queries)[0], choice


def linear_classify(
    bank: Float[np.ndarray, "n d"],
    queries: Float[np.ndarray, "m d"],
    labels: Int[np.ndarray, " n"],
    held_out: Bool[np.ndarray, " n"],
    num_classes: int,
) -> Int32[np.ndarray, " m"]:
    """Classify as a protocol, see `Protocol.classify`; a bank of one class gives that class."""
    labelled = labels >= 0
    if len(classes := np.unique(labels[labelled])) == 1:
        log.warning("linear probe: the labelled rows have one class: it is every answer")
        return np.full(len(queries), classes[0], np.int32)
    fitted_on = labels[labelled & ~held_out]
    if not (held_out & labelled).any() or len(np.unique(fitted_on)) < 2:
        try:
            held_out = held_out_rows(labels)
            log.warning("linear probe: the held-out rows cannot choose a strength: others are used")
        except FeaturesError:
            log.warning(
                "linear probe: too few rows to choose a strength: %g is used", STRENGTHS[-1]
            )
            unit = float(_unit(jnp.asarray(bank), labelled))
            probe = fit(bank / unit, labels, num_classes=num_classes, strengths=[STRENGTHS[-1]])
            return np.asarray(predict(probe, queries / unit)[0])
    predicted, _ = linear_predict(bank, labels, queries, num_classes=num_classes, held_out=held_out)
    return np.asarray(predicted)


def _check_width(name: str, fitted: Array, queries: Array) -> None:
    if fitted.shape[-1] != queries.shape[-1]:
        raise FeaturesError(
            f"{name} has {fitted.shape[-1]} features a row and queries {queries.shape[-1]}: "
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
    """Return the root of the features' mean variance over the used rows; 1 if all are constant."""
    features, used = features.astype(jnp.float32), used[:, None]
    variance = jnp.mean(jnp.var(features, axis=0, where=used))
    return jnp.sqrt(jnp.where(variance > 0, variance, 1))


def held_out_rows(
    labels: Int[ArrayLike, " n"],
    *,
    fraction: float = 0.2,
    groups: Int[ArrayLike, " n"] | None = None,
    seed: int = 0,
) -> Bool[np.ndarray, " n"]:
    """Choose labelled rows at random to be held out, the same fraction of every class.

    Args:
        labels: -1 is unlabelled and never chosen.
        fraction: of the rows of each class, up to rounding; a class is never held out completely.
        groups: such as the cells of a map. A group is held out as a whole or not at all, so the
            fractions are met only as closely as the groups allow. -1 is a group by itself.
        seed: of the choice, which depends on the arguments alone.

    Raises:
        FeaturesError: shapes differ, the fraction is outside 0 to 1, or no rows can be held out.

    Example:
        >>> from satmip_jax.evaluation.linear_probe import held_out_rows
        >>> held_out = held_out_rows(np.repeat([0, 1], 50))
        >>> held_out[:50].sum(), held_out[50:].sum()
        (np.int64(10), np.int64(10))
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
    held_out[single] = _draw_rows(labels[single], fraction, rng)
    grouped = (labels >= 0) & (groups >= 0)
    held_out[grouped] = _draw_groups(labels[grouped], groups[grouped], fraction, rng)
    if not held_out.any():
        raise FeaturesError(
            f"of {int((labels >= 0).sum())} labelled rows none can be held out at a fraction of "
            f"{fraction}: there are too few rows of a class, or all are in one group"
        )
    return held_out


def _draw_rows(
    labels: NDArray[Any], fraction: float, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Take every 1/fraction-th row, with rows sorted by class and shuffled within a class."""
    order = np.lexsort((rng.random(len(labels)), labels))
    place = np.floor((np.arange(len(labels) + 1) + rng.random()) * fraction)
    chosen = np.zeros(len(labels), bool)
    chosen[order] = np.diff(place) > 0
    names, first = np.unique(labels[order], return_index=True)
    chosen[order[first[~np.isin(names, labels[~chosen])]]] = False
    return chosen


def _draw_groups(
    labels: NDArray[Any], groups: NDArray[Any], fraction: float, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Take groups in random order, each if it brings the classes closer to their fractions."""
    names, group = np.unique(groups, return_inverse=True)
    classes, label = np.unique(labels, return_inverse=True)
    counts = np.zeros((len(names), len(classes)), np.int32)
    np.add.at(counts, (group, label), 1)
    total = counts.sum(axis=0)
    missing = fraction * total
    taken = np.zeros(len(names), bool)
    left = total.copy()
    for i in rng.permutation(len(names)):
        closer = np.sum(((missing - counts[i]) ** 2 - missing**2) / total) < 0
        if closer and (left > counts[i]).all():
            taken[i] = True
            missing, left = missing - counts[i], left - counts[i]
    return taken[group]
