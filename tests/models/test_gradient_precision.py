"""Gradients of bfloat16 encoders, summed over images and devices in float32."""

import jax
import jax.numpy as jnp
import numpy as np

from satmip_jax.distributed.sharding import batch_sharding, make_mesh, replicated
from satmip_jax.models.vit import vit


def test_gradients_of_eight_devices_are_those_of_one():
    """A sum that is rounded to bfloat16 on the way is off by two or three thousandths."""
    model = vit("mu/8", dtype=jnp.bfloat16)
    images = np.asarray(jax.random.normal(jax.random.key(0), (64, 16, 16, 3)))
    params = jax.jit(model.init)(jax.random.key(1), images[:1])
    target = jax.random.normal(jax.random.key(2), (64, 32))

    def loss(params, images, target):
        return jnp.mean(jnp.sum(model.apply(params, images) * target, axis=1))

    gradients = []
    for devices in (1, 8):
        mesh = make_mesh(jax.devices()[:devices])
        rows, everywhere = batch_sharding(mesh), replicated(mesh)
        shardings = (everywhere, rows, rows)
        grad = jax.jit(jax.grad(loss), in_shardings=shardings, out_shardings=everywhere)
        gradients.append(jax.device_get(grad(params, images, target)))
    one, eight = gradients
    for (path, expected), got in zip(
        jax.tree.leaves_with_path(one), jax.tree.leaves(eight), strict=True
    ):
        assert got.dtype == np.float32
        error = np.linalg.norm(got - expected) / np.linalg.norm(expected)
        assert error < 2e-4, (jax.tree_util.keystr(path), error)
