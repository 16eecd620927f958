"""Projectors: statistics of the global batch on one device and on eight."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from satmip_jax.models.projectors import BatchNorm, LinearProjector, MLPProjector

KEY = jax.random.key(0)
# Means far apart across the batch: statistics of a shard differ from those of the batch.
RNG = np.random.default_rng(0)
X = (3 + np.arange(16)[:, None] + RNG.standard_normal((16, 6))).astype(np.float32)


def test_batch_norm_equals_numpy():
    norm = BatchNorm()
    scale, bias = RNG.standard_normal((2, 6), np.float32)
    out = norm.apply({"params": {"scale": scale, "bias": bias}}, jnp.asarray(X))
    x = np.asarray(X, np.float64)
    expected = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5) * scale + bias
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)


def test_batch_norm_is_global_under_sharding():
    model = MLPProjector(hidden=12, out=4)
    params = jax.jit(model.init)(KEY, X)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    sharded = jax.device_put(X, NamedSharding(mesh, PartitionSpec("data")))

    def loss(params, x):
        out = model.apply(params, x)
        return jnp.sum(jnp.sin(out) * jnp.arange(4.0)[None]), out

    step = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
    one, eight = step(params, X), step(params, sharded)
    assert len(eight[0][1].sharding.device_set) == 8
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), one, eight)


def test_mlp_equals_numpy():
    model = MLPProjector(hidden=5, out=4)
    params = jax.jit(model.init)(KEY, X)
    params = jax.tree.map(lambda p: p + 0.3 * RNG.standard_normal(p.shape, np.float32), params)
    x = np.asarray(X, np.float64)
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params["params"])
    for i in (1, 2):
        assert set(p[f"linear{i}"]) == {"kernel"}  # the norm would subtract a bias again
        x = x @ p[f"linear{i}"]["kernel"]
        x = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)
        x = np.maximum(x * p[f"norm{i}"]["scale"] + p[f"norm{i}"]["bias"], 0)
    x = x @ p["linear3"]["kernel"] + p["linear3"]["bias"]
    np.testing.assert_allclose(jax.jit(model.apply)(params, X), x, rtol=1e-3, atol=1e-3)


def test_linear_is_one_matrix_with_output_in_float32():
    model = LinearProjector(3, dtype=jnp.bfloat16)
    params = jax.jit(model.init)(KEY, X)
    assert jax.tree.map(jnp.shape, params) == {"params": {"linear": {"kernel": (6, 3)}}}
    out = model.apply(params, jnp.asarray(X))
    assert out.dtype == jnp.float32
    np.testing.assert_allclose(out, X @ params["params"]["linear"]["kernel"], rtol=0.03, atol=0.1)


def test_errors_say_what_is_wrong():
    params = {"params": {"scale": jnp.ones(6), "bias": jnp.ones(6)}}
    with pytest.raises(ValueError, match="at least two examples, not 1"):
        BatchNorm().apply(params, jnp.asarray(X[:1]))
    with pytest.raises(ValueError, match="at least one layer, not 0"):
        MLPProjector(4, 2, layers=0).init(KEY, jnp.asarray(X))
