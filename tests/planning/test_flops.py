"""FLOPs: those of the architecture, by hand."""

import jax
import jax.numpy as jnp
import pytest

from satmip_jax.distributed import sharding
from satmip_jax.models.vit import vit
from satmip_jax.planning.flops import matmul_flops, step_flops
from satmip_jax.training.step import build_program


def test_flops_of_a_vit_are_those_by_hand():
    """timm's ViT-S/16 at 224 px has 4.6 G multiply-adds (Touvron et al. 2021, DeiT, table 5)."""
    model = vit("S/16")
    image = jnp.zeros((1, 224, 224, 3))
    params = jax.eval_shape(model.init, jax.random.key(0), image)
    tokens, width = 197, 384
    block = 12 * width**2 * tokens + 2 * tokens**2 * width  # qkv, out, mlp; scores and mixing
    # The last block computes queries and what follows attention for the class token alone; its
    # queries are projected for all tokens.
    last = (3 * tokens + 9) * width**2 + 2 * tokens * width
    by_hand = 2 * (11 * block + last + 196 * 768 * width)
    assert matmul_flops(model.apply, params, image) == by_hand
    assert 12 * block + 196 * 768 * width == pytest.approx(4.6e9, rel=0.01)


def test_flops_of_loops_count_every_round():
    def loop(x):
        return jax.lax.scan(lambda carry, _: (carry @ x, None), x, length=5)[0]

    assert matmul_flops(loop, jnp.zeros((4, 4))) == 5 * 2 * 4**3


WIDTH, METADATA = 32, 16  # of the tiny image encoder and metadata encoder
BATCH, HIDDEN, SSL, EMBED = 16, 16, 8, 12

# per image, forward
IMAGE_SSL = 2 * 2 * (WIDTH * HIDDEN + HIDDEN**2 + HIDDEN * SSL)  # projects two views
PAIR = 2 * (WIDTH + METADATA) * EMBED
# over the batch, forward
NT_XENT = 2 * SSL * (2 * BATCH) ** 2
INFO_NCE = 2 * EMBED * BATCH**2


@pytest.mark.parametrize(
    ("method", "options", "views", "heads", "loss"),
    [
        ("simclr", (), 2, IMAGE_SSL, NT_XENT),
        ("satmip", (), 1, PAIR, INFO_NCE),
        ("satmip", ("--config.method.loss=sigmoid",), 1, PAIR, INFO_NCE),
        ("satmips", (), 2, IMAGE_SSL + PAIR, NT_XENT + INFO_NCE),
        (
            "satmips",
            ("--config.method.coupled=False",),
            3,
            IMAGE_SSL + PAIR,
            NT_XENT + INFO_NCE,
        ),
        ("supervised", (), 1, 2 * WIDTH * 10, 0),
    ],
)
def test_flops_of_a_step(method, options, views, heads, loss, tiny_config, tiny_shards):
    config = tiny_config(method, f"--config.method.embed_dim={EMBED}", *options)
    assert len(tiny_shards.schema.classes) == 10
    program = build_program(config, tiny_shards.schema, 64, sharding.make_mesh())
    parts = step_flops(program)
    # one block on 16 patches of 8 px, without a class token: mean pooling
    block = 12 * WIDTH**2 * 16 + 2 * 16**2 * WIDTH
    assert parts["image encoder"] == 3 * BATCH * views * 2 * (block + 16 * 192 * WIDTH)
    assert ("metadata encoder" in parts) == method.startswith("satmip")
    assert parts["heads"] == 3 * BATCH * heads
    assert parts["loss"] == 3 * loss
