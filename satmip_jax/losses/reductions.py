"""Reductions over the scores of an anchor's negatives.

A contrastive loss compares the score of each positive pair with a summary of the scores of all
negatives. InfoNCE and NT-Xent need their log-sum-exp, the sigmoid loss the sum of their softplus.
Each reduction is written twice, with the same result:

* `reduce`: from the matrix of all scores, for the exchange `gather`.
* `init`, `update`, `merge`, `finalize`: from one tile of scores after another, with a running state
  per row, for the exchange `ring`. `derivative` is the backward pass of this form.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float32

Results = tuple[Float32[Array, " n"], ...]
State = tuple[Float32[Array, " n"], ...]

MASKED = float(jnp.finfo(jnp.float32).min)  # the score of a pair that is not a negative


@runtime_checkable
class Reduction(Protocol):
    """A reduction over the scores of each row (axis 1) or of each column (axis 0).

    Only the first of its results may have a gradient.
    """

    def reduce(self, s: Float32[Array, "n m"]) -> Results:
        """Reduce each row of a matrix of scores.

        Args:
            s: scores of n rows with all m columns; `MASKED` where a pair is not a negative.

        Returns:
            The results, each of shape (n,).
        """
        ...

    def init(self, x: Float32[Array, "n d"]) -> State:
        """Return the state before the first tile, one entry for each row of `x`."""
        ...

    def update(self, state: State, s: Float32[Array, "i j"], axis: int) -> State:
        """Add one tile of scores to the state.

        Args:
            state: arrays of shape (i,) if `axis` is 1, (j,) if it is 0.
            s: the scores; `MASKED` where a pair is not a negative.
            axis: the axis of `s` to reduce over.

        Returns:
            The new state, of the same shape.
        """
        ...

    def merge(self, first: State, second: State) -> State:
        """Return the state of the tiles of two states."""
        ...

    def finalize(self, state: State) -> Results:
        """Return the results that `reduce` would give for all tiles together."""
        ...

    def derivative(
        self, s: Float32[Array, "i j"], result: Float32[Array, "#i #j"]
    ) -> Float32[Array, "i j"]:
        """Return the derivative of the first result with respect to each score.

        Args:
            s: one tile of scores.
            result: the first result of the rows, (i, 1), or of the columns, (1, j).
        """
        ...


class LogSumExp:
    """`log(sum(exp(s)))`, and the largest score, which has no gradient.

    Example:
        >>> from satmip_jax.losses.reductions import LogSumExp
        >>> scores = jnp.log(jnp.array([[1.0, 2.0, 5.0]]))
        >>> [round(float(result[0]), 3) for result in LogSumExp().reduce(scores)]
        [2.079, 1.609]
    """

    def reduce(self, s: Float32[Array, "n m"]) -> Results:
        """Reduce each row of a matrix of scores; see `Reduction.reduce`."""
        return jax.nn.logsumexp(s, axis=1), lax.stop_gradient(jnp.max(s, axis=1))

    def init(self, x: Float32[Array, "n d"]) -> State:
        """Return the state of no scores: (largest score, sum of exponentials relative to it)."""
        zero = 0 * x[:, 0]  # not jnp.zeros: it must vary over the devices like x
        return zero + jnp.float32(MASKED), zero

    def update(self, state: State, s: Float32[Array, "i j"], axis: int) -> State:
        """Add one tile of scores to the state; see `Reduction.update`."""
        largest, total = state
        new = jnp.maximum(largest, jnp.max(s, axis=axis))
        terms = jnp.exp(s - jnp.expand_dims(new, axis))
        return new, total * jnp.exp(largest - new) + jnp.sum(terms, axis=axis)

    def merge(self, first: State, second: State) -> State:
        """Return the state of the tiles of two states."""
        largest = jnp.maximum(first[0], second[0])
        one, other = (total * jnp.exp(old - largest) for old, total in (first, second))
        return largest, one + other

    def finalize(self, state: State) -> Results:
        """Return (log-sum-exp, largest score)."""
        largest, total = state
        return largest + jnp.log(total), largest

    def derivative(
        self, s: Float32[Array, "i j"], result: Float32[Array, "#i #j"]
    ) -> Float32[Array, "i j"]:
        """Return the softmax of the scores."""
        return jnp.exp(s - result)


class SoftPlus:
    """`sum(log(1 + exp(s)))`.

    Example:
        >>> from satmip_jax.losses.reductions import SoftPlus
        >>> round(float(SoftPlus().reduce(jnp.zeros((1, 4)))[0][0]), 3)  # 4 log(2)
        2.773
    """

    def reduce(self, s: Float32[Array, "n m"]) -> Results:
        """Reduce each row of a matrix of scores; see `Reduction.reduce`."""
        return (jnp.sum(jax.nn.softplus(s), axis=1),)

    def init(self, x: Float32[Array, "n d"]) -> State:
        """Return the sum of no scores."""
        return (0 * x[:, 0],)  # not jnp.zeros: it must vary over the devices like x

    def update(self, state: State, s: Float32[Array, "i j"], axis: int) -> State:
        """Add one tile of scores to the state; see `Reduction.update`."""
        return (state[0] + jnp.sum(jax.nn.softplus(s), axis=axis),)

    def merge(self, first: State, second: State) -> State:
        """Return the sum of the tiles of two states."""
        return (first[0] + second[0],)

    def finalize(self, state: State) -> Results:
        """Return the sum."""
        return state

    def derivative(
        self, s: Float32[Array, "i j"], result: Float32[Array, "#i #j"]
    ) -> Float32[Array, "i j"]:
        """Return the sigmoid of the scores."""
        return jnp.broadcast_to(jax.nn.sigmoid(s), s.shape)


def scores(x: Float32[Array, "n d"], y: Float32[Array, "m d"]) -> Float32[Array, "n m"]:
    """Return the scalar products of all rows of `x` with all rows of `y`, in full float32.

    At a scale of 100 the 10 bits of TF32 would cause an error of 0.1 in a logit.
    """
    # (n, d) . (m, d) -> (n, m)
    return lax.dot_general(x, y, (((1,), (1,)), ((), ())), precision=lax.Precision.HIGHEST)
