"""The forward pass in micro-batches: every row with its own key, in the order of the batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from satmip_jax.augmentation.views import keys_of_images
from satmip_jax.distributed.sharding import batch_sharding, make_mesh
from satmip_jax.objectives import Forward

B = 16


@pytest.mark.parametrize(("devices", "fsdp", "micro_batch"), [(1, 1, 4), (4, 2, 2), (8, 1, 1)])
def test_micro_batches_are_joined_in_the_order_of_the_batch(
    devices, fsdp, micro_batch, tiny_shards
):
    """Contrastive losses do not depend on this order; those of labels and of fields do."""
    mesh = make_mesh(jax.devices()[:devices], fsdp=fsdp)
    keys = keys_of_images(jax.random.key(0), B)
    rows = {"images": jnp.arange(3.0 * B).reshape(B, 3), "numbers": jnp.arange(B)}
    sizes = []

    def function(rows, keys):
        sizes.append(len(keys))
        drawn = jax.vmap(lambda key: jax.random.uniform(key, (3,)))(keys)
        return rows["images"] + drawn + rows["numbers"][:, None].astype(jnp.float32)

    def draw(images, keys, view):
        return images

    def encode(rows, keys):
        forward = Forward(None, {}, keys, draw, mesh, tiny_shards.schema, micro_batch=micro_batch)
        return forward.encode(function, rows)

    spread = batch_sharding(mesh)
    got = jax.jit(encode, in_shardings=(spread, spread), out_shardings=spread)(rows, keys)
    assert set(sizes) == {micro_batch * devices}
    np.testing.assert_allclose(got, function(rows, keys), rtol=1e-6)
