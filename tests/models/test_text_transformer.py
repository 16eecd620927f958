"""The text Transformer against plain numpy; padding has no effect."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from satmip_jax.models.text_transformer import TextTransformer

MODEL = TextTransformer(width=24, depth=2, heads=3, length=12, vocab_size=40)
TOKENS = np.array([[5, 9, 9, 2, 7, 31], [4, 39, 1, 0, 0, 0], [6, 0, 0, 0, 0, 0]], np.int32)


@pytest.fixture(scope="module")
def params():
    params = jax.jit(MODEL.init)(jax.random.key(0), TOKENS)
    rng = np.random.default_rng(1)  # moved off their initial values, so that each has an effect
    return jax.tree.map(lambda p: p + 0.2 * rng.standard_normal(p.shape, np.float32), params)


@jax.jit
def apply(params, tokens):
    return MODEL.apply(params, tokens)


@jax.jit
def loss_and_gradient(params, tokens):
    return jax.value_and_grad(lambda p: jnp.sum(jnp.sin(MODEL.apply(p, tokens))))(params)


def norm(x, p):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    return x * p["scale"] + p["bias"]


def linear(x, p):
    return x @ p["kernel"] + p["bias"]


def naive(params, tokens, heads):
    """Encode one sequence at a time, without its padding, in float64."""
    params = jax.tree.map(lambda p: np.asarray(p, np.float64), params["params"])
    blocks = params["encoder"]["blocks"]
    out = []
    for row in tokens:
        real = row[row != 0]
        x = params["token_embedding"][real] + params["position"][: len(real)]
        for i in range(len(blocks["norm1"]["scale"])):
            block = jax.tree.map(lambda p, i=i: p[i], blocks)
            qkv = linear(norm(x, block["norm1"]), block["attention"]["qkv"])
            q, k, v = (
                part.reshape(len(real), heads, -1).transpose(1, 0, 2)
                for part in np.split(qkv, 3, axis=1)
            )
            weights = np.exp(q @ k.transpose(0, 2, 1) / math.sqrt(q.shape[-1]))
            weights /= weights.sum(-1, keepdims=True)
            y = (weights @ v).transpose(1, 0, 2).reshape(x.shape)
            x = x + linear(y, block["attention"]["out"])
            y = linear(norm(x, block["norm2"]), block["mlp"]["fc1"])
            y = y * (1 + np.vectorize(math.erf)(y / math.sqrt(2))) / 2
            x = x + linear(y, block["mlp"]["fc2"])
        out.append(norm(x.mean(0), params["norm"]))
    return np.stack(out)


@pytest.mark.parametrize("attention", ["einsum", "xla"])
def test_equals_numpy(params, attention):
    out = jax.jit(MODEL.clone(attention=attention).apply)(params, TOKENS)
    assert out.dtype == jnp.float32
    np.testing.assert_allclose(out, naive(params, TOKENS, heads=3), rtol=1e-4, atol=1e-4)


def test_padding_has_no_effect(params):
    (loss, grads), (loss_padded, grads_padded) = (
        loss_and_gradient(params, tokens) for tokens in (TOKENS, np.pad(TOKENS, ((0, 0), (0, 5))))
    )
    np.testing.assert_allclose(loss, loss_padded, rtol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), grads, grads_padded
    )
    assert not np.any(grads_padded["params"]["token_embedding"][0])
    assert not np.any(grads_padded["params"]["position"][6:])
    assert np.all(np.any(grads_padded["params"]["position"][:6], axis=1))


def test_the_order_of_tokens_changes_the_output(params):
    swapped = TOKENS[:, [1, 0, 2, 3, 4, 5]]
    assert not np.allclose(apply(params, TOKENS)[:2], apply(params, swapped)[:2], atol=1e-3)


def test_padding_alone_gives_finite_values(params):
    assert np.isfinite(apply(params, np.zeros_like(TOKENS))).all()
    loss, grads = loss_and_gradient(params, np.zeros_like(TOKENS))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((loss, grads)))


def test_bfloat16_is_close_and_parameters_are_float32(params):
    half = MODEL.clone(dtype=jnp.bfloat16, remat=True)
    shapes = jax.eval_shape(half.init, jax.random.key(0), TOKENS)
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype(jnp.float32)}
    a, b = apply(params, TOKENS), jax.jit(half.apply)(params, TOKENS)
    assert b.dtype == jnp.float32
    assert 0 < jnp.linalg.norm(a - b) / jnp.linalg.norm(a) < 0.03


def test_errors_say_what_is_wrong_with_the_tokens(params, no_type_checks):
    with pytest.raises(ValueError, match=r"at most 12\), not \(1, 13\)"):
        MODEL.apply(params, jnp.ones((1, 13), jnp.int32))
    with pytest.raises(ValueError, match=r"not \(6,\)"):
        MODEL.apply(params, jnp.ones((6,), jnp.int32))
    unknown = np.full_like(TOKENS, 40)
    assert np.isnan(apply(params, unknown)).all()  # clamping the id would be silently wrong
