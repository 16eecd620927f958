"""Reductions against numpy in float64: all scores at once, tile by tile, derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from satmip_jax.losses.reductions import MASKED, LogSumExp, Reduction, SoftPlus, scores

S = np.random.default_rng(0).normal(scale=20, size=(5, 12)).astype(np.float32)


def numpy_results(reduction, s):
    s = s.astype(np.float64)
    if isinstance(reduction, SoftPlus):
        return (np.logaddexp(0, s).sum(axis=1),)
    return np.logaddexp.reduce(s, axis=1), s.max(axis=1)


@pytest.mark.parametrize("reduction", [LogSumExp(), SoftPlus()])
def test_results_equal_numpys_at_once_and_in_tiles(reduction):
    assert isinstance(reduction, Reduction)
    expected = numpy_results(reduction, S)
    rows = columns = reduction.init(jnp.asarray(S))
    for tile in np.split(S, [1, 5], axis=1):
        rows = reduction.update(rows, jnp.asarray(tile), 1)
        columns = reduction.update(columns, jnp.asarray(tile.T), 0)
    empty = reduction.init(jnp.asarray(S))
    left, right = (reduction.update(empty, jnp.asarray(s), 1) for s in np.split(S, [5], axis=1))
    merged = reduction.merge(reduction.merge(empty, right), left)
    states = (rows, columns, merged, reduction.merge(rows, empty))
    for results in (reduction.reduce(jnp.asarray(S)), *map(reduction.finalize, states)):
        for result, want in zip(results, expected, strict=True):
            np.testing.assert_allclose(result, want, rtol=1e-5)


@pytest.mark.parametrize("reduction", [LogSumExp(), SoftPlus()])
def test_derivative_is_that_of_the_first_result(reduction):
    s = jnp.asarray(S)
    expected = jax.grad(lambda s: jnp.sum(reduction.reduce(s)[0]))(s)
    by_rows = reduction.derivative(s, reduction.reduce(s)[0][:, None])
    by_columns = reduction.derivative(s.T, reduction.reduce(s)[0][None])
    np.testing.assert_allclose(by_rows, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(by_columns.T, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("reduction", [LogSumExp(), SoftPlus()])
def test_masked_scores_have_no_effect(reduction):
    masked = np.concatenate([S, np.full((5, 3), MASKED, np.float32)], axis=1)
    for result, want in zip(
        reduction.reduce(jnp.asarray(masked)), numpy_results(reduction, S), strict=True
    ):
        np.testing.assert_allclose(result, want, rtol=1e-5)


def test_scores_are_scalar_products():
    x, y = S[:, :4], S[:3, 4:8]
    expected = x.astype(np.float64) @ y.T.astype(np.float64)
    np.testing.assert_allclose(scores(jnp.asarray(x), jnp.asarray(y)), expected, rtol=1e-5)
