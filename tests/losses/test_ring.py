"""The ring exchange: memory. Its values and gradients are compared in `test_contrastive.py`."""

import jax
import jax.numpy as jnp

from satmip_jax.distributed.sharding import BATCH, make_mesh
from satmip_jax.losses.contrastive import gather_pairs
from satmip_jax.losses.reductions import LogSumExp
from satmip_jax.losses.ring import ring_pairs


def test_no_more_than_a_tile_of_scores_is_in_memory():
    """1,024 x 1,024 scores are 4 MiB; tiles of 64 take less than a fifth, gradients included."""
    rows, tile = 1024, 64
    mesh = make_mesh(jax.devices()[:1])
    shape = jax.ShapeDtypeStruct((rows, 12), jnp.float32)

    def temporary(pairs):
        def loss(a, b):
            return jax.shard_map(
                lambda a, b: jax.lax.psum(sum(jnp.sum(r[0]) for r in pairs(a, b)), BATCH),
                mesh=mesh,
                in_specs=jax.P(BATCH),
                out_specs=jax.P(),
            )(a, b)

        compiled = jax.jit(jax.value_and_grad(loss, argnums=(0, 1))).lower(shape, shape).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    reduction = LogSumExp()
    tiled = temporary(lambda a, b: ring_pairs(a, b, reduction, rows, tile))
    dense = temporary(lambda a, b: gather_pairs(a, b, reduction, rows))
    assert dense > 4 * rows * rows
    assert tiled < 4 * rows * rows / 5
