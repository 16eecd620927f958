"""The solver of the linear probe: L-BFGS for multinomial logistic regression, in float32.

Why float32 and few iterations suffice:

* Strengths are solved from the strongest to the weakest. Each starts where the line through the
  last two solutions, over the logarithm of the strength, leads.
* At that start features are rotated onto their principal axes, rows weighted by the curvature of
  their loss. This leaves the penalty unchanged and makes the Hessian nearly diagonal. The problem
  is scaled by that diagonal.
* Scores are linear in the parameters, so a line search needs no product with the features. An
  iteration has two such products, or three in the few whose first step is not accepted.
* The line search uses slopes, not values (as Hager and Zhang 2005 do near a minimum): values there
  are equal in float32, slopes are not. The objective is convex, so slopes suffice.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax
from jaxtyping import Bool, Float, Float32, Int32, Int64

MEMORY = 10  # steps in the history of L-BFGS
CURVATURE = 0.9  # a step is accepted once the slope is this fraction of the first one
MAX_TRIALS = 20  # steps tried by a line search


class Solution(NamedTuple):
    """Solutions for s strengths, see `linear_probe.Fit`."""

    coefficients: Float32[Array, "*s classes d"]
    intercepts: Float32[Array, "*s classes"]
    objective: Float32[Array, "*s"]
    iterations: Int32[Array, "*s"]
    converged: Bool[Array, "*s"]


class _Rows(NamedTuple):
    """The data."""

    features: Array  # (n, d)
    one_hot: Array  # (n, classes)
    weight: Array  # (n,), sums to 1
    present: Array  # bool (classes,), the class has rows


_Parameters = tuple[Array, Array]  # coefficients (classes, d) and intercepts (classes,)


class _State(NamedTuple):
    theta: Array  # (classes, d + 1), scaled parameters
    scores: Array  # (n, classes)
    objective: Array
    gradient: Array  # (classes, d + 1), with respect to theta
    lbfgs: Any
    iteration: Array
    stuck: Array


class _Search(NamedTuple):
    length: Array  # to try next, or accepted
    low: Array  # the minimum lies between these
    high: Array
    trials: Array
    accepted: Array


def rows_to_fit(weights: Float32[np.ndarray, " n"]) -> Int64[np.ndarray, " m"]:
    """Return the rows of weight above 0, and others up to a multiple of a sixteenth of all rows.

    The folds of a cross-validation then have equally many, and share a compiled program.
    """
    step = -(-len(weights) // 16)
    size = -(-np.count_nonzero(weights) // step) * step
    return np.sort(np.argsort(weights == 0, kind="stable")[:size])


@partial(jax.jit, static_argnames="num_classes")
def solve(
    features: Float[Array, "n d"],
    labels: Int32[Array, " n"],
    weights: Float32[Array, " n"],
    strengths: Float32[Array, " s"],
    tolerance: Float32[Array, ""],
    max_iter: Int32[Array, ""],
    start: tuple[Float32[Array, "classes d"], Float32[Array, " classes"]] | None = None,
    *,
    num_classes: int,
) -> Solution:
    """Minimize the objective for every strength; see `linear_probe.fit`, which checks arguments.

    Args:
        features: finite; rows may be sharded.
        labels: ignored where the weight is 0.
        weights: 0 or more, not all 0.
        strengths: above 0, descending.
        tolerance: on the gradient.
        max_iter: largest number of iterations per strength.
        start: coefficients and intercepts to start the first strength from; 0 by default.
        num_classes: labels are 0 to num_classes - 1.
    """
    with jax.default_matmul_precision("highest"):  # inside optax too; TF32 and bfloat16 stall
        features, weight = features.astype(jnp.float32), weights / jnp.sum(weights)
        mean = jnp.einsum("n,nd->d", weight, features)
        classes = jnp.arange(num_classes, dtype=jnp.int32)
        is_class = (labels[:, None] == classes[None]) & (weight > 0)[:, None]
        present = is_class.any(axis=0)
        rows = _Rows(features - mean[None], is_class.astype(jnp.float32), weight, present)
        if start is None:
            start = jnp.zeros((num_classes, features.shape[1])), jnp.zeros(num_classes)
        usable = present & jnp.isfinite(start[1])
        coefficients = jnp.where(usable[:, None], start[0], 0)
        origin = coefficients, jnp.where(usable, start[1], 0) + coefficients @ mean

        def one(
            last_two: tuple[_Parameters, _Parameters], strengths: tuple[Array, Array]
        ) -> tuple[tuple[_Parameters, _Parameters], Solution]:
            strength, farther = strengths
            last, before = last_two
            predicted: _Parameters = jax.tree.map(lambda x, y: x + farther * (x - y), last, before)
            solution = _minimize(rows, predicted, strength, tolerance, max_iter)
            # a class without rows has the score -infinity
            intercepts = jnp.where(
                present, solution.intercepts - solution.coefficients @ mean, -jnp.inf
            )
            return (solution[:2], last), solution._replace(intercepts=intercepts)

        # each step of log(strength), as a multiple of the step before; no line through one point
        steps = jnp.diff(jnp.log(strengths))
        farther = jnp.where(steps[:-1] < 0, steps[1:] / steps[:-1], 0)
        farther = jnp.concatenate([jnp.zeros(min(2, len(strengths))), jnp.clip(farther, 0, 1)])
        return lax.scan(one, (origin, origin), (strengths, farther))[1]


def _minimize(
    rows: _Rows,
    start: _Parameters,
    strength: Array,
    tolerance: Array,
    max_iter: Array,
) -> Solution:
    """Minimize for one strength, from `start`; parameters are those of the centred features."""
    # A class without rows has the score -infinity, which nothing changes.
    unseen = jnp.where(rows.present, jnp.float32(0), -jnp.inf)[None]
    centre, axes, variance = _principal_axes(rows, *start, unseen)
    # (n, d) . (d, e) -> (n, e), and a constant feature for the intercept
    rotated = jnp.einsum("nd,de->ne", rows.features - centre[None], axes)
    rotated = jnp.concatenate([rotated, jnp.ones((len(rotated), 1), jnp.float32)], axis=1)
    # The diagonal of the Hessian, averaged over the classes; the intercept has no penalty.
    penalty = jnp.where(jnp.arange(len(variance)) < len(variance) - 1, strength, 0)
    scale = lax.rsqrt(variance / jnp.sum(rows.present).astype(jnp.float32) + penalty)[None]
    penalty = penalty[None] * jnp.square(scale)  # of theta
    theta = jnp.concatenate([start[0] @ axes, (start[1] + start[0] @ centre)[:, None]], axis=1)
    theta /= scale
    lbfgs = optax.scale_by_lbfgs(memory_size=MEMORY)

    def scores_of(theta: Array) -> Array:
        return jnp.einsum("nd,kd->nk", rotated, theta * scale)

    def evaluate(theta: Array, scores: Array) -> tuple[Array, Array]:
        """Return the objective and its gradient."""
        logarithm = jax.nn.logsumexp(scores, axis=1)
        true = jnp.sum(jnp.where(rows.one_hot > 0, scores, 0), axis=1)
        loss = jnp.sum(rows.weight * (logarithm - true))
        residual = rows.weight[:, None] * (jnp.exp(scores - logarithm[:, None]) - rows.one_hot)
        gradient = jnp.einsum("nk,nd->kd", residual, rotated) * scale + penalty * theta
        return loss + jnp.sum(penalty * jnp.square(theta)) / 2, gradient

    def small(gradient: Array, objective: Array, tolerance: Array) -> Array:
        return jnp.sum(jnp.square(gradient)) <= jnp.square(tolerance) * objective

    def unfinished(state: _State) -> Array:
        done = state.stuck | small(state.gradient, state.objective, tolerance)
        return ~done & (state.iteration < max_iter)

    def step(state: _State) -> _State:
        ascent, history = lbfgs.update(state.gradient, state.lbfgs, state.theta)
        # Rounding can spoil the history; then fall back to the steepest descent.
        usable = jnp.sum(ascent * state.gradient) > 0
        direction = jnp.where(usable, -ascent, -state.gradient)
        along = scores_of(direction)
        linear = jnp.sum(penalty * state.theta * direction)
        square = jnp.sum(penalty * jnp.square(direction))

        def slope(length: Array) -> tuple[Array, Array]:
            """Return first and second derivative of the objective along the direction."""
            likely = jax.nn.softmax(state.scores + length * along, axis=1)
            mean = jnp.sum(likely * along, axis=1)
            first = jnp.sum((likely - rows.one_hot) * along, axis=1)
            second = jnp.sum(likely * jnp.square(along - mean[:, None]), axis=1)
            return (
                jnp.sum(rows.weight * first) + linear + length * square,
                jnp.sum(rows.weight * second) + square,
            )

        def move(length: Array) -> _State:
            theta, scores = state.theta + length * direction, state.scores + length * along
            stuck = ~(length > 0)  # also if it is NaN
            return _State(
                theta, scores, *evaluate(theta, scores), history, state.iteration + 1, stuck
            )

        # Nearly all steps are of length 1: it is tried by the gradient, which is needed there.
        first = jnp.sum(state.gradient * direction)
        full = move(jnp.float32(1))
        flat = jnp.abs(jnp.sum(full.gradient * direction)) <= CURVATURE * jnp.abs(first)
        return lax.cond(flat, lambda: full, lambda: move(_line_search(slope, first)))

    scores = scores_of(theta) + unseen
    first = _State(
        theta, scores, *evaluate(theta, scores), lbfgs.init(theta), jnp.int32(0), jnp.bool_(False)
    )
    end = lax.while_loop(unfinished, step, first)
    # Scores accumulated rounding errors over the iterations: report those of the parameters.
    objective, gradient = evaluate(end.theta, scores_of(end.theta) + unseen)
    parameters = end.theta * scale
    coefficients = parameters[:, :-1] @ axes.T
    return Solution(
        coefficients,
        parameters[:, -1] - coefficients @ centre,
        objective,
        end.iteration,
        small(gradient, objective, 2 * tolerance),
    )


def _principal_axes(
    rows: _Rows, coefficients: Array, intercepts: Array, unseen: Array
) -> tuple[Array, Array, Array]:
    """Return the coordinates in which the Hessian, summed over the classes, is diagonal.

    Rows count by the curvature of their loss, which is 0 where the answer is certain.

    Returns:
        The centre (d,), the axes (d, d), as columns, and the diagonal (d + 1,), the last for the
        intercepts.
    """
    likely = jax.nn.softmax(rows.features @ coefficients.T + intercepts[None] + unseen, axis=1)
    curvature = rows.weight * (jnp.sum(likely * (1 - likely), axis=1) + 1e-6)  # never all 0
    total = jnp.sum(curvature)
    centre = jnp.einsum("n,nd->d", curvature / total, rows.features)
    centred = rows.features - centre[None]
    covariance = jnp.einsum("nd,ne->de", curvature[:, None] * centred, centred)
    variance, axes = jnp.linalg.eigh(covariance)
    return centre, axes, jnp.append(jnp.maximum(variance, 0), total)


def _line_search(slope: Callable[[Array], tuple[Array, Array]], first: Array) -> Array:
    """Find a step length at which a convex function has flattened, by bracketed Newton steps.

    Args:
        slope: step length -> first and second derivative there.
        first: the first derivative at 0, below 0.

    Returns:
        The length; 0 if rounding hides that the function decreases.
    """

    def unfinished(search: _Search) -> Array:
        return ~search.accepted & (search.trials < MAX_TRIALS)

    def trial(search: _Search) -> _Search:
        length = search.length
        now, change = slope(length)
        accepted = jnp.abs(now) <= CURVATURE * jnp.abs(first)
        low = jnp.where(now < 0, length, search.low)
        high = jnp.where(now < 0, search.high, length)
        newton = length - now / change
        farthest = jnp.minimum(high, 10 * length)
        middle = jnp.where(jnp.isinf(high), farthest, (low + high) / 2)
        following = jnp.where((newton > low) & (newton < farthest), newton, middle)
        return _Search(
            jnp.where(accepted, length, following), low, high, search.trials + 1, accepted
        )

    start = _Search(
        jnp.float32(1), jnp.float32(0), jnp.float32(jnp.inf), jnp.int32(0), jnp.bool_(False)
    )
    end = lax.while_loop(unfinished, trial, start)
    return jnp.where(end.accepted, end.length, end.low)
