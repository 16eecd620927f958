"""Gradients of bfloat16 encoders, summed over images and devices in float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from satmip_jax.distributed.sharding import batch_sharding, make_mesh, replicated
from satmip_jax.distributed.target import Target
from satmip_jax.models.vit import vit


@pytest.mark.parametrize("gradient_dtype", ["float32", "bfloat16"])
def test_gradients_of_eight_devices_are_those_of_one(gradient_dtype):
    """A sum that is rounded to bfloat16 on the way is off by two or three thousandths."""
    target = Target("cpu", gradient_dtype=gradient_dtype)
    model = vit("mu/8", dtype=jnp.bfloat16, target=target)
    images = np.asarray(jax.random.normal(jax.random.key(0), (64, 16, 16, 3)))
    params = jax.jit(model.init)(jax.random.key(1), images[:1])
    weights = jax.random.normal(jax.random.key(2), (64, 32))

    def loss(params, images, weights):
        return jnp.mean(jnp.sum(model.apply(params, images) * weights, axis=1))

    gradients = []
    for devices in (1, 8):
        mesh = make_mesh(jax.devices()[:devices])
        rows, everywhere = batch_sharding(mesh), replicated(mesh)
        shardings = (everywhere, rows, rows)
        grad = jax.jit(jax.grad(loss), in_shardings=shardings, out_shardings=everywhere)
        gradients.append(jax.device_get(grad(params, images, weights)))
    one, eight = gradients
    errors = {}
    for (path, expected), got in zip(
        jax.tree.leaves_with_path(one), jax.tree.leaves(eight), strict=True
    ):
        assert got.dtype == np.float32
        name = jax.tree_util.keystr(path)
        errors[name] = np.linalg.norm(got - expected) / np.linalg.norm(expected)
    if gradient_dtype == "float32":
        assert max(errors.values()) < 2e-4, errors
    else:
        rounded = [error for name, error in errors.items() if "kernel" in name and "block" in name]
        assert 1e-3 < min(rounded) < max(rounded) < 2e-2, errors
