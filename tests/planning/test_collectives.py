"""Bytes sent between devices, of compiled programs and of the text of asynchronous operations."""

import jax
import jax.numpy as jnp
import pytest

from satmip_jax.distributed import sharding
from satmip_jax.planning import hlo
from satmip_jax.planning.accelerators import ACCELERATORS
from satmip_jax.planning.collectives import Collective, sent_bytes, transfers
from satmip_jax.planning.roofline import kernel_costs


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


PERMUTE = """
  %start = (f32[8,16]{1,0:T(8,128)}, f32[8,16]{1,0}, u32[], u32[]) collective-permute-start(%x)
  %done = f32[8,16]{1,0} collective-permute-done(%start)
"""
GATHER = """
  %start = (f32[8,16]{1,0}, f32[64,16]{1,0}) all-gather-start(%x), replica_groups=[1,8]<=[8]
  %done = f32[64,16]{1,0} all-gather-done(%start)
"""
GATHER_OF_TWO = """
  %start = ((f32[8], bf16[8]), (f32[64], bf16[64])) all-gather-start(%x, %y), \
replica_groups={{0,1,2,3,4,5,6,7}}
  %done = (f32[64], bf16[64]) all-gather-done(%start)
"""
REDUCE = """
  %start = f32[16]{0} all-reduce-start(%x), replica_groups={{0,1},{2,3}}, to_apply=%add
  %done = f32[16]{0} all-reduce-done(%start)
"""
SCATTER = """
  %start = ((f32[16]), f32[2], u32[]) async-start(%x), calls=%scatter
  %done = f32[2] async-done(%start), calls=%scatter
"""


PERMUTE_OF_TWO = """
  %start = ((f32[1,8,128], f32[1,8]), (f32[1,8,128], f32[1,8])) collective-permute-start(%x, %y), \
source_target_pairs={{0,1},{1,0}}
  %done = (f32[1,8,128], f32[1,8]) collective-permute-done(%start)
"""
SCATTER_OF_TWO = """
  %start = ((f32[2048,512], f32[4096,256]), (f32[256,512], f32[512,256])) \
reduce-scatter-start(%x, %y), replica_groups={{0,1,2,3,4,5,6,7}}, dimensions={0}, to_apply=%add
  %done = (f32[256,512], f32[512,256]) reduce-scatter-done(%start)
"""
REDUCE_OF_TWO = """
  %start = (f32[16]{0}, bf16[8]{0}) all-reduce-start(%x, %y), \
replica_groups=mesh['axis_0'=8,'axis_1'=1] {'axis_0'}, to_apply=%add
  %done = (f32[16]{0}, bf16[8]{0}) all-reduce-done(%start)
"""


@pytest.mark.parametrize(
    ("body", "collective", "size"),
    [
        (PERMUTE_OF_TWO, Collective("collective-permute", 2), 4 * (8 * 128 + 8)),
        (SCATTER_OF_TWO, Collective("reduce-scatter", 8), 7 * 4 * (256 * 512 + 512 * 256)),
        (REDUCE_OF_TWO, Collective("all-reduce", 8), 2 * (16 * 4 + 8 * 2) * 7 // 8),
        (PERMUTE, Collective("collective-permute", 2), 8 * 16 * 4),
        (GATHER, Collective("all-gather", 8), 64 * 16 * 4 * 7 // 8),
        (GATHER_OF_TWO, Collective("all-gather", 8), 64 * (4 + 2) * 7 // 8),
        (REDUCE, Collective("all-reduce", 2), 2 * 16 * 4 // 2),
        (SCATTER, Collective("reduce-scatter", 8), 2 * 4 * 7),
    ],
)
def test_asynchronous_operations_count_once(body, collective, size):
    """On accelerators, a collective is a start and a done; the start also lists its operands."""
    scatter = "  ROOT %r = f32[2] reduce-scatter(%p), replica_groups=[1,8]<=[8], to_apply=%add"
    program = (
        f"HloModule step\n\n%scatter (p: f32[16]) -> f32[2] {{\n{scatter}\n}}\n\n"
        f"ENTRY %main (x: f32[8,16]) -> f32[8,16] {{\n{body}}}\n"
    )
    assert sent_bytes(program) == {collective: size}


RING = """
%square (p: f32[4096,4096]) -> f32[4096,4096] {
  %p = f32[4096,4096]{1,0} parameter(0)
  ROOT %multiply.1 = f32[4096,4096]{1,0} multiply(%p, %p)
}

%hop (t: (s32[], f32[4096,4096])) -> (s32[], f32[4096,4096]) {
  %t = (s32[], f32[4096,4096]{1,0}) parameter(0)
  %x = f32[4096,4096]{1,0} get-tuple-element(%t), index=1
  %start = (f32[4096,4096]{1,0}, f32[4096,4096]{1,0}) collective-permute-start(%x), \
source_target_pairs={{0,1},{1,0}}, metadata={op_name="jit(step)/jvp()/shard_map/ppermute"}
  %fusion.1 = f32[4096,4096]{1,0} fusion(%x), kind=kLoop, calls=%square
  %done = f32[4096,4096]{1,0} collective-permute-done(%start)
  %fusion.2 = f32[4096,4096]{1,0} fusion(%done), kind=kLoop, calls=%square
  ROOT %r = (s32[], f32[4096,4096]{1,0}) tuple(%i, %done)
}

ENTRY %main (x: f32[8]) -> f32[8] {
  %while.1 = (s32[], f32[4096,4096]{1,0}) while(%t), condition=%c, body=%hop, \
backend_config={"known_trip_count":{"n":"8"}}
  %gradients = f32[1024]{0} all-reduce(%g), replica_groups={{0,1}}, to_apply=%add
}
"""


def test_compute_between_start_and_done_hides_a_transfer():
    """One of two fusions runs while columns travel; a synchronous sum hides nothing."""
    module, h100 = hlo.parse(RING), ACCELERATORS["h100"]
    costs = kernel_costs(module, h100)
    hop, gradients = transfers(module, {cost.name: cost.seconds for cost in costs})
    size = 4 * 4096**2
    assert (hop.times, hop.part, dict(hop.dtypes)) == (8, "losses", {"f32": size})
    assert hop.meanwhile == pytest.approx(2 * size / 3352.32e9)
    assert hop.exposed(450e9) == pytest.approx(size / 450e9 - hop.meanwhile)
    assert hop.exposed(4e12) == 0
    assert (gradients.part, gradients.meanwhile) == ("gradients", 0)
    assert gradients.exposed(450e9) == pytest.approx(2 * 4096 / 2 / 450e9)
