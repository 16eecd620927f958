"""Attention, GELU, norms and linear layers against formulas and Flax; forms of the encoder."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from satmip_jax.models.attention import attend, resolve_attention
from satmip_jax.models.encoder import Encoder
from satmip_jax.models.layers import Dense, LayerNorm, gelu, layer_norm, linear

KEY = jax.random.key(0)


def naive_attention(q, k, v, lengths):
    out = np.zeros_like(q)
    for b in range(q.shape[0]):
        n = lengths[b]
        for h in range(q.shape[2]):
            logits = q[b, :, h] @ k[b, :n, h].T / np.sqrt(q.shape[-1])
            weights = np.exp(logits - logits.max(-1, keepdims=True))
            out[b, :, h] = weights / weights.sum(-1, keepdims=True) @ v[b, :n, h]
    return out


@pytest.mark.parametrize("implementation", ["auto", "einsum", "xla"])
@pytest.mark.parametrize("masked", [False, True])
def test_attention_equals_the_formula(implementation, masked):
    rng = np.random.default_rng(0)
    q = rng.standard_normal((3, 4, 2, 8), np.float32)
    k, v = rng.standard_normal((2, 3, 6, 2, 8), np.float32)
    lengths = np.array([6, 1, 4] if masked else [6, 6, 6], np.int32)
    out = attend(
        jnp.asarray(q),
        jnp.asarray(k),
        jnp.asarray(v),
        lengths=jnp.asarray(lengths) if masked else None,
        implementation=implementation,
    )
    np.testing.assert_allclose(out, naive_attention(q, k, v, lengths), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("masked", [False, True])
def test_the_gradient_does_not_depend_on_the_implementation(masked):
    """XLA's recomputes the weights for it, also under `vmap`, as captions are encoded."""
    q, k, v, g = jax.random.normal(KEY, (4, 3, 5, 2, 8))
    lengths = jnp.array([5, 1, 4], jnp.int32) if masked else None

    def run(implementation):
        def one(q, k, v, lengths):
            lengths = None if lengths is None else lengths[None]
            return attend(
                q[None], k[None], v[None], lengths=lengths, implementation=implementation
            )[0]

        mapped = jax.vmap(one, (0, 0, 0, 0 if masked else None))
        return jax.vjp(lambda *qkv: mapped(*qkv, lengths), q, k, v)[1](g)

    for ours, reference in zip(run("xla"), run("einsum"), strict=True):
        np.testing.assert_allclose(ours, reference, rtol=1e-5, atol=1e-6)


def test_blocks_keep_few_values_for_the_gradient():
    """They keep the bfloat16 inputs of products, no float32 values and no attention weights."""
    model = Encoder(2, 2, 64, attention="xla", dtype=jnp.bfloat16)
    x = jnp.ones((3, 20, 16), jnp.bfloat16)
    with jax.numpy_dtype_promotion("standard"):  # required by JAX's attention
        variables = model.init(KEY, x)
        _, back = jax.vjp(model.apply, variables, x)
    rows = 3 * 20
    kept = [a for a in jax.tree.leaves(back) if a.size > 2 * rows and a.size % rows == 0]
    parameters = {a.shape[1:] for a in jax.tree.leaves(variables)}  # kept as they are, float32
    kept = [a for a in kept if a.shape not in parameters]
    assert sum(a.size for a in kept) > 2 * rows * (16 + 48 + 16 + 64 + 64)
    assert {a.dtype for a in kept} == {jnp.dtype(jnp.bfloat16)}
    assert not [a.shape for a in kept if a.shape[-2:] == (20, 20)]


def test_a_row_without_keys_is_finite():
    x = np.random.default_rng(0).standard_normal((2, 3, 1, 4), np.float32)
    lengths = jnp.array([0, 3], jnp.int32)

    @jax.jit
    def run(x):
        out, back = jax.vjp(lambda x: attend(x, x, x, lengths=lengths), x)
        return out, back(out)[0]

    assert all(np.isfinite(a).all() for a in run(x))


def test_errors_name_the_wrong_attribute(no_type_checks):
    assert resolve_attention("auto", jnp.float32, 64) in ("einsum", "xla")
    with pytest.raises(ValueError, match="'flash'"):
        resolve_attention("flash", jnp.float32, 64)
    with pytest.raises(ValueError, match="width 10 is not a multiple of heads 4"):
        Encoder(1, 4, 20).init(KEY, jnp.zeros((1, 2, 10)))
    with pytest.raises(ValueError, match="depth"):
        Encoder(0, 2, 20).init(KEY, jnp.zeros((1, 2, 10)))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_gelu_and_layer_norm_compute_in_float32(dtype):
    erf = np.vectorize(math.erf)
    x = jnp.linspace(-5, 5, 101).astype(dtype)
    exact = np.asarray(x, np.float64)
    tolerance = {"rtol": 2 * float(jnp.finfo(dtype).eps), "atol": 2e-6}
    expected = exact * (1 + erf(exact / np.sqrt(2))) / 2
    np.testing.assert_allclose(np.asarray(gelu(x), np.float64), expected, **tolerance)

    # A mean far from zero: in bfloat16, or by E[x^2] - E[x]^2, the variance would be lost.
    x = 1000 + 8 * np.random.default_rng(0).standard_normal((4, 256))
    x = jnp.asarray(x.astype(np.float32)).astype(dtype)
    exact = np.asarray(x, np.float64)
    expected = (exact - exact.mean(-1, keepdims=True)) / exact.std(-1, keepdims=True)
    norm = LayerNorm(dtype=dtype)
    out = norm.apply(norm.init(KEY, x), x)
    assert out.dtype == dtype
    tolerance["atol"] = 2e-5
    np.testing.assert_allclose(np.asarray(out, np.float64), expected, **tolerance)


def test_results_do_not_depend_on_loop_and_recomputation():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 5, 16), np.float32)
    lengths = jnp.array([5, 3], jnp.int32)
    params = jax.jit(Encoder(3, 2, 32).init)(KEY, x, lengths)
    params = jax.tree.map(lambda p: p + 0.1 * rng.standard_normal(p.shape, np.float32), params)
    kernels = params["params"]["blocks"]["mlp"]["fc1"]["kernel"]
    assert kernels.shape == (3, 16, 32)
    assert not np.allclose(kernels[0], kernels[1])

    def run(**options):
        encoder = Encoder(3, 2, 32, **options)

        def loss(params, x):
            return jnp.sum(jnp.sin(encoder.apply(params, x, lengths)))

        return jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(params, x)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), run(), run(remat=True)
    )


@pytest.mark.parametrize("remat", [False, True])
@pytest.mark.parametrize("outputs", [1, 2])
def test_leading_tokens_are_those_of_all_tokens(outputs, remat):
    x = jax.random.normal(KEY, (2, 5, 16))
    encoder = Encoder(2, 2, 32, remat=remat)
    params = encoder.init(KEY, x)

    def run(leading):
        def loss(params, x):
            out = encoder.apply(params, x, outputs=leading)[:, :outputs]
            return jnp.sum(jnp.sin(out)), out

        return jax.grad(loss, argnums=(0, 1), has_aux=True)(params, x)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=3e-5), run(outputs), run(None)
    )


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("shape", [(6, 5), (2, 3, 4, 5)])
def test_dense_has_the_gradients_of_flaxs_dense(shape, dtype):
    x = jax.random.normal(jax.random.key(0), shape, dtype)
    target = jax.random.normal(jax.random.key(1), (*shape[:-1], 7), dtype)
    ours, theirs = Dense(7, dtype=dtype), nn.Dense(7, dtype=dtype)
    variables = theirs.init(jax.random.key(2), x)

    def loss(layer):
        return lambda v, x: (layer.apply(v, x) * target).astype(jnp.float32).sum()

    got, expected = (jax.grad(loss(m), argnums=(0, 1))(variables, x) for m in (ours, theirs))
    tolerance = {"rtol": 1e-5, "atol": 1e-5} if dtype == jnp.float32 else {"rtol": 0.02}
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(
            np.asarray(a, np.float32), np.asarray(b, np.float32), **tolerance
        )


def naive_layer_norm(x, scale, bias):
    mean = x.mean(-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(-1, keepdims=True)
    return (x - mean) / jnp.sqrt(variance + 1e-6) * scale.reshape(1, 1, -1) + bias.reshape(1, 1, -1)


@pytest.mark.parametrize("mean", [0.0, 50.0])
def test_layer_norm_has_the_gradients_of_the_formula(mean):
    keys = jax.random.split(KEY, 4)
    x = mean + jax.random.normal(keys[0], (3, 4, 16))
    scale, bias = 1 + jax.random.normal(keys[1], (16,)), jax.random.normal(keys[2], (16,))
    grad = jax.random.normal(keys[3], x.shape)

    def run(function):
        out, back = jax.vjp(function, x, scale, bias)
        return out, *back(grad)

    ours = run(lambda *arrays: layer_norm(*arrays, 1e-6, jnp.float32))
    for got, expected in zip(ours, run(naive_layer_norm), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("has_bias", [True, False])
def test_linear_has_the_gradients_of_one_product(parts, has_bias):
    keys = jax.random.split(KEY, 4)
    x, kernel = jax.random.normal(keys[0], (5, 4)), jax.random.normal(keys[1], (4, 6))
    bias = jax.random.normal(keys[2], (6,))
    grad = jax.random.normal(keys[3], (5, 6))

    def ours(x, kernel, bias):
        return jnp.concatenate(linear(x, kernel, bias if has_bias else None, parts), axis=1)

    def plain(x, kernel, bias):
        return x @ kernel + (bias[None] if has_bias else 0.0)

    def run(function):
        out, back = jax.vjp(function, x, kernel, bias)
        return out, *back(grad)

    for got, expected in zip(run(ours), run(plain), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
