"""The doctor's numbers against hand computation, real programs and real runs."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from satmip_jax.data.loaders import InMemoryBatches
from satmip_jax.distributed import sharding
from satmip_jax.models.vit import vit
from satmip_jax.planning import memory
from satmip_jax.planning.collectives import Collective, sent_bytes
from satmip_jax.planning.dry_run import diagnose
from satmip_jax.planning.flops import matmul_flops, step_flops
from satmip_jax.training.step import build_program
from tests.conftest import TINY, use_one_device


def test_flops_of_a_vit_are_those_by_hand():
    """timm's ViT-S/16 at 224 px has 4.6 G multiply-adds (Touvron et al. 2021, DeiT, table 5)."""
    model = vit("S/16")
    image = jnp.zeros((1, 224, 224, 3))
    params = jax.eval_shape(model.init, jax.random.key(0), image)
    tokens, width = 197, 384
    block = 12 * width**2 * tokens + 2 * tokens**2 * width  # qkv, out, mlp; scores and mixing
    by_hand = 2 * (12 * block + 196 * 768 * width)
    got = matmul_flops(model.apply, params, image)
    assert got == by_hand
    assert got / 2 == pytest.approx(4.6e9, rel=0.01)


def test_flops_of_loops_count_every_round():
    def loop(x):
        return jax.lax.scan(lambda carry, _: (carry @ x, None), x, length=5)[0]

    assert matmul_flops(loop, jnp.zeros((4, 4))) == 5 * 2 * 4**3


def test_flops_of_a_step(tiny_config, tiny_shards):
    config = tiny_config("satmips")
    program = build_program(config, tiny_shards.schema, 64, sharding.make_mesh())
    parts = step_flops(program)
    batch, dims = config.optimizer.batch_size, config.method
    assert (
        parts["loss"] == 3 * 2 * dims.ssl_dim * (2 * batch) ** 2 + 3 * 2 * dims.embed_dim * batch**2
    )
    ssl = 2 * (32 * dims.ssl_hidden + dims.ssl_hidden**2 + dims.ssl_hidden * dims.ssl_dim)
    linear = 2 * (32 + config.metadata.width) * dims.embed_dim
    assert parts["heads"] == 3 * batch * (2 * ssl + linear)
    # one block of width 32 on 16 patches of 8 px and the class token's absence: mean pooling
    block = 12 * 32**2 * 16 + 2 * 16**2 * 32
    assert parts["image encoder"] == 3 * batch * 2 * 2 * (block + 16 * 192 * 32)


def test_bytes_sent_are_those_of_the_exchange():
    """A program of known collectives over 8 devices, one of them in a loop."""
    mesh = sharding.make_mesh(fsdp=2)
    spread = sharding.batch_sharding(mesh)
    x = jax.ShapeDtypeStruct((64, 16), jnp.float32, sharding=spread)

    def local(x):  # (8, 16) on each
        everyone = jax.lax.all_gather(x, sharding.BATCH, tiled=True)

        def hop(x, _):
            return jax.lax.ppermute(x, sharding.BATCH, [(i, (i + 1) % 8) for i in range(8)]), None

        moved, _ = jax.lax.scan(hop, x, length=5)
        column = jax.lax.psum(jnp.sum(x, axis=0), sharding.FSDP)  # among pairs
        return moved + jnp.sum(everyone) + column[None]

    sharded = jax.shard_map(
        local, mesh=mesh, in_specs=jax.P(sharding.BATCH), out_specs=jax.P(sharding.BATCH)
    )
    sent = sent_bytes(jax.jit(sharded).lower(x).compile().as_text())
    assert sent == {
        Collective("all-gather", 8): 64 * 16 * 4 * 7 // 8,
        Collective("collective-permute", 2): 5 * 8 * 16 * 4,
        Collective("all-reduce", 2): 2 * 16 * 4 // 2,
    }


def test_a_plan_describes_what_then_runs(tiny_config, tiny_shards):
    config = tiny_config("satmips", "--config.parallel.fsdp=2", "--config.parallel.micro_batch=1")
    found = diagnose(config)
    assert found.problems == []
    mesh = sharding.make_mesh(fsdp=2)
    program = build_program(config, tiny_shards.schema, len(tiny_shards), mesh)
    with InMemoryBatches(tiny_shards, mesh, batch_size=16, seed=0) as batches:
        batch = next(batches)
    planned = jax.tree.map(lambda x: (x.shape, x.dtype, x.sharding), memory.abstract_batch(program))
    assert jax.tree.map(lambda x: (x.shape, x.dtype, x.sharding), batch) == planned
    state = program.init()
    local = sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(state))
    assert found.numbers["state_bytes"] == local
    facts = {what: value for _, what, value in found.facts}
    assert facts["images"] == "16 in all, 2 per device"
    assert facts["micro-batches"] == "2 of 1 images per device"
    assert facts["negatives, satmip"].startswith("15 per anchor")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["--config.optimizer.batch_size=20"], "is not a multiple of the 8 devices: use 16 or 24"),
        (["--config.parallel.fsdp=3"], "use one of 1, 2, 4, 8"),
        (["--config.parallel.micro_batch=3"], "micro_batch is 3, and a device has 2 images"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_compiled(tiny_config, overrides, message):
    found = diagnose(tiny_config("satmips", *overrides))
    assert len(found.problems) == 1
    assert message in found.problems[0]


def test_too_little_memory_is_said_and_mended(tiny_config, tiny_shards, monkeypatch):
    use_one_device(monkeypatch)  # compiling for one device is quicker
    config = tiny_config("simclr")
    found = diagnose(config, devices=1, device_memory=1)
    (problem,) = found.problems
    assert "micro_batch" in problem
    needed = found.numbers["compiled_bytes"]
    fitted, bytes_needed = memory.fit(config, tiny_shards.schema, 64, int(0.8 * needed))
    assert 0 < fitted.parallel.micro_batch < 16
    assert bytes_needed <= memory.HEADROOM * 0.8 * needed
    config.parallel.micro_batch = 1
    with pytest.raises(MemoryError, match="use more devices"):
        memory.fit(config, tiny_shards.schema, 64, needed // 100)


def test_the_command_plans_for_devices_that_are_not_there(tiny_shards_dir):
    """64 devices, without data as well: a fresh process, as the number is set before jax starts."""
    command = [sys.executable, "-m", "satmip_jax.cli", "doctor", "--devices", "64", "--config"]
    command += ["configs/eurosat.py:simclr,cpu", *TINY, "--config.optimizer.batch_size=128"]
    command += [f"--config.data.dir={tiny_shards_dir}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    words = " ".join(done.stdout.split())
    assert "64 x cpu: data 64, fsdp 1; 8 process(es)" in words
    assert "128 in all, 2 per device" in words
    assert "254 per anchor" in words
    assert "nothing is wrong" in words
