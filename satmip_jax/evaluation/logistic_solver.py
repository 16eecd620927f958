"""The solver of the linear probe: L-BFGS for multinomial logistic regression, in float32.

Why float32 and few iterations suffice:

* Features are rotated onto their principal axes. This leaves the penalty unchanged and makes the
  Hessian nearly diagonal. The problem is scaled by that diagonal, which takes a half to a third of
  the iterations.
* Scores are linear in the parameters, so a line search needs no product with the features. An
  iteration has two such products, whatever the number of steps tried.
* The line search uses slopes, not values (as Hager and Zhang 2005 do near a minimum): values there
  are equal in float32, slopes are not. The objective is convex, so slopes suffice.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax
from jaxtyping import Bool, Float, Float32, Int32

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
    """The data: rotated and centred features, and a constant feature for the intercept."""

    features: Array  # (n, d + 1)
    variance: Array  # (d + 1,), the last is 1
    is_class: Array  # bool (classes, n)
    weight: Array  # (n,), sums to 1
    present: Array  # bool (classes, 1), the class has rows


class _State(NamedTuple):
    theta: Array  # (classes, d + 1), scaled parameters
    scores: Array  # (classes, n)
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


@partial(jax.jit, static_argnames=("num_classes", "together"))
def solve(
    features: Float[Array, "n d"],
    labels: Int32[Array, " n"],
    weights: Float32[Array, " n"],
    strengths: Float32[Array, " s"],
    tolerance: Float32[Array, ""],
    max_iter: Int32[Array, ""],
    *,
    num_classes: int,
    together: int,
) -> Solution:
    """Minimize the objective for every strength; see `linear_probe.fit`, which checks arguments.

    Args:
        features: finite; rows may be sharded.
        labels: ignored where the weight is 0.
        weights: 0 or more, not all 0.
        strengths: above 0.
        tolerance: on the gradient.
        max_iter: largest number of iterations.
        num_classes: labels are 0 to num_classes - 1.
        together: strengths solved at a time, under vmap.
    """
    with jax.default_matmul_precision("highest"):  # inside optax too; TF32 and bfloat16 stall
        features, weight = features.astype(jnp.float32), weights / jnp.sum(weights)
        mean = jnp.einsum("n,nd->d", weight, features)
        centred = features - mean[None]
        covariance = jnp.einsum("n,nd,ne->de", weight, centred, centred)
        axes = jnp.linalg.eigh(covariance)[1]  # columns
        ones = jnp.ones((len(features), 1), jnp.float32)
        rotated = jnp.concatenate([jnp.einsum("nd,de->ne", centred, axes), ones], axis=1)
        classes = jnp.arange(num_classes, dtype=jnp.int32)
        is_class = (labels[None] == classes[:, None]) & (weight > 0)[None]
        rows = _Rows(
            rotated,
            jnp.einsum("n,nd->d", weight, jnp.square(rotated)),
            is_class,
            weight,
            is_class.any(axis=1, keepdims=True),
        )

        def one(strength: Array) -> Solution:
            solution = _minimize(rows, strength, tolerance, max_iter)
            # (classes, d) . (e, d) -> (classes, e): back from the principal axes
            coefficients = jnp.einsum("kd,ed->ke", solution.coefficients, axes)
            intercepts = solution.intercepts - jnp.einsum("kd,d->k", coefficients, mean)
            return solution._replace(coefficients=coefficients, intercepts=intercepts)

        return lax.map(one, strengths, batch_size=together)


def _minimize(rows: _Rows, strength: Array, tolerance: Array, max_iter: Array) -> Solution:
    # The diagonal of the Hessian if all classes are equally likely; the intercept has no penalty.
    penalty = jnp.where(jnp.arange(len(rows.variance)) < len(rows.variance) - 1, strength, 0)
    present = jnp.sum(rows.present).astype(jnp.float32)
    scale = 1 / jnp.sqrt(rows.variance / present + penalty)[None]
    penalty = penalty[None] * jnp.square(scale)  # of theta
    one_hot = rows.is_class.astype(jnp.float32)
    lbfgs = optax.scale_by_lbfgs(memory_size=MEMORY)

    def scores_of(theta: Array) -> Array:
        return jnp.einsum("kd,nd->kn", theta * scale, rows.features)

    def evaluate(theta: Array, scores: Array) -> tuple[Array, Array]:
        """Return the objective and its gradient."""
        logarithm = jax.nn.logsumexp(scores, axis=0)
        true = jnp.sum(jnp.where(rows.is_class, scores, 0), axis=0)
        loss = jnp.sum(rows.weight * (logarithm - true))
        residual = rows.weight[None] * (jnp.exp(scores - logarithm[None]) - one_hot)
        gradient = jnp.einsum("kn,nd->kd", residual, rows.features) * scale + penalty * theta
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
            likely = jax.nn.softmax(state.scores + length * along, axis=0)
            mean = jnp.sum(likely * along, axis=0)
            first = jnp.sum((likely - one_hot) * along, axis=0)
            second = jnp.sum(likely * jnp.square(along - mean[None]), axis=0)
            return (
                jnp.sum(rows.weight * first) + linear + length * square,
                jnp.sum(rows.weight * second) + square,
            )

        length = _line_search(slope, jnp.sum(state.gradient * direction))
        theta, scores = state.theta + length * direction, state.scores + length * along
        objective, gradient = evaluate(theta, scores)
        iteration, stuck = state.iteration + 1, ~(length > 0)  # also if it is NaN
        return _State(theta, scores, objective, gradient, history, iteration, stuck)

    theta = jnp.zeros((len(rows.present), len(rows.variance)), jnp.float32)
    # A class without rows has the score -infinity, which nothing changes.
    unseen = jnp.where(rows.present, jnp.float32(0), -jnp.inf)
    scores = jnp.broadcast_to(unseen, rows.is_class.shape)
    start = _State(
        theta, scores, *evaluate(theta, scores), lbfgs.init(theta), jnp.int32(0), jnp.bool_(False)
    )
    end = lax.while_loop(unfinished, step, start)
    # Scores accumulated rounding errors over the iterations: report those of the parameters.
    objective, gradient = evaluate(end.theta, scores_of(end.theta) + unseen)
    parameters = end.theta * scale
    return Solution(
        parameters[:, :-1],
        parameters[:, -1] + unseen[:, 0],
        objective,
        end.iteration,
        small(gradient, objective, 2 * tolerance),
    )


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
