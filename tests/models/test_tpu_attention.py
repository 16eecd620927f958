"""The attention kernel of TPUs, run as plain JAX, and patches by convolution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from satmip_jax.distributed.sharding import BATCH, make_mesh
from satmip_jax.distributed.target import Target
from satmip_jax.models.attention import Attention, attend, resolve_attention
from satmip_jax.models.patches import PatchEmbedding
from satmip_jax.models.tpu_attention import attend_projection
from satmip_jax.models.vit import vit

KEY = jax.random.key(0)


def reference(qkv, heads):
    batch, tokens, channels = qkv.shape
    parts = qkv.reshape(batch, tokens, 3, heads, channels // (3 * heads))
    out = attend(*(parts[:, :, i] for i in range(3)), implementation="einsum")
    return out.reshape(batch, tokens, channels // 3)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize(("tokens", "heads", "width"), [(21, 2, 16), (65, 4, 32), (1, 1, 8)])
def test_kernel_and_gradient_equal_plain_attention(tokens, heads, width, dtype):
    qkv = 2 * jax.random.normal(KEY, (3, tokens, 3 * heads * width), dtype)
    grad = jax.random.normal(jax.random.key(1), (3, tokens, heads * width), dtype)

    def run(function):
        out, back = jax.vjp(function, qkv)
        return out, back(grad)[0]

    ours = run(lambda x: attend_projection(x, heads, interpret=True))
    for got, expected in zip(ours, run(lambda x: reference(x, heads)), strict=True):
        assert got.dtype == dtype
        got, expected = (np.asarray(x, np.float32) for x in (got, expected))
        tolerance = 1e-6 if dtype == jnp.float32 else 0.01  # of the largest value
        np.testing.assert_allclose(got, expected, atol=tolerance * np.abs(expected).max())


def test_each_device_runs_the_kernel_on_its_rows():
    mesh = make_mesh(fsdp=2)
    rows = NamedSharding(mesh, PartitionSpec(BATCH))
    qkv = jax.device_put(jax.random.normal(KEY, (16, 9, 48)), rows)

    def loss(x, mesh):
        return jnp.sum(jnp.sin(attend_projection(x, 2, mesh, interpret=True)))

    compiled = jax.jit(jax.grad(lambda x: loss(x, mesh))).lower(qkv).compile()
    assert not [name for name in ("all-gather", "all-to-all") if name in compiled.as_text()]
    np.testing.assert_allclose(
        compiled(qkv), jax.grad(lambda x: loss(x, None))(jnp.asarray(np.asarray(qkv))), atol=1e-6
    )
    assert attend_projection(jnp.zeros((2, 9, 48)), 2, mesh, interpret=True).shape == (2, 9, 16)


def test_a_tpus_vit_is_that_of_other_devices():
    """The same parameters give the same representations and gradients."""
    mesh = make_mesh()
    plain = vit("mu/8")
    assert resolve_attention("auto", jnp.bfloat16, 64, Target("tpu", mesh=mesh)) == "pallas"
    assert resolve_attention("auto", jnp.bfloat16, 64, Target("tpu")) == "xla"
    # The kernel as plain JAX, and the patches as a convolution, both on CPU devices.
    tpu = vit("mu/8", attention="pallas", target=Target("cpu", mesh=mesh))
    images = jax.random.normal(KEY, (8, 24, 24, 3))
    params = jax.jit(plain.init)(KEY, images)

    def run(model):
        def loss(params):
            out = model.apply(params, images)
            return jnp.sum(jnp.sin(out)), out

        return jax.jit(jax.grad(loss, has_aux=True))(params)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), run(tpu), run(plain)
    )


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_patches_by_convolution(dtype):
    images = jax.random.normal(KEY, (4, 12, 20, 3))
    target = jax.random.normal(jax.random.key(1), (4, 15, 6))
    copies, convolution = (PatchEmbedding(6, 4, choice, dtype) for choice in (False, True))
    params = copies.init(KEY, images)

    def run(model):
        def loss(params, images):
            out = model.apply(params, images)
            return jnp.sum(out.astype(jnp.float32) * target), out

        return jax.grad(loss, argnums=(0, 1), has_aux=True)(params, images)

    pairs = zip(jax.tree.leaves(run(convolution)), jax.tree.leaves(run(copies)), strict=True)
    for got, expected in pairs:
        assert got.dtype == expected.dtype
        got, expected = (np.asarray(x, np.float32) for x in (got, expected))
        tolerance = 1e-6 if dtype == jnp.float32 else 0.01
        np.testing.assert_allclose(got, expected, atol=tolerance * np.abs(expected).max())


def test_the_kernel_leaves_padding_and_single_queries_to_others():
    x = jax.random.normal(KEY, (2, 6, 16))
    lengths = jnp.array([6, 3], jnp.int32)
    for arguments in ((x, lengths), (x,)):
        for queries in (None, 1):
            results = [
                model.apply(model.init(KEY, x), *arguments, queries=queries)
                for model in (Attention(2, implementation=i) for i in ("pallas", "einsum"))
            ]
            np.testing.assert_allclose(*results, atol=1e-6)
