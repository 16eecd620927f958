"""The forward pass in micro-batches: every row with its own key, in the order of the batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from satmip_jax.augmentation.views import keys_of_images
from satmip_jax.distributed.sharding import batch_sharding, make_mesh
from satmip_jax.metadata import caption, tabular
from satmip_jax.metadata.record import Metadata
from satmip_jax.models import build_towers, init_params
from satmip_jax.objectives import Forward, build_method

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


@pytest.mark.parametrize("switch", ["", ",text"])
def test_no_gradient_is_held_for_each_record(switch, tiny_config, tiny_shards):
    """Records draw their dropout by themselves; the gradient of a kernel is one product for all."""
    batch, schema = 37, tiny_shards.schema  # no other size
    config = tiny_config(f"satmip{switch}")
    towers, mesh = build_towers(config, schema, build_method(config)), make_mesh(jax.devices()[:1])
    params = jax.eval_shape(lambda: init_params(config, towers, schema))
    records = [Metadata.parse({"location": [12, 48]})] * batch
    metadata = tabular.encode(records, schema) | {"caption": caption.fragments(records)}
    keys = keys_of_images(jax.random.key(0), batch)

    def total(params):
        forward = Forward(towers, params, keys, lambda images, keys, view: images, mesh, schema)
        return jnp.sum(forward.metadata(jax.tree.map(jnp.asarray, metadata)))

    program = str(jax.make_jaxpr(jax.grad(total))(params))
    encoder = params["metadata_encoder"]
    kernels = [
        leaf.shape[-2:]
        for path, leaf in jax.tree_util.tree_leaves_with_path(encoder)
        if "kernel" in str(path[-1]) and "tokenizer" not in str(path)
    ]
    assert kernels
    for rows, columns in kernels:
        assert f"[{rows},{columns}]" in program
        assert f"[{batch},{rows},{columns}]" not in program
