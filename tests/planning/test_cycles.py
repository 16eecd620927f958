"""XLA's estimates in a program for a TPU, and parts of a step."""

import pytest

from satmip_jax.planning import hlo
from satmip_jax.planning.accelerators import ACCELERATORS
from satmip_jax.planning.costs import by_part, merged, part_of
from satmip_jax.planning.cycles import cycle_costs

V5E = ACCELERATORS["v5e"]
PROGRAM = """
%body (p: (s32[], f32[64,32])) -> (s32[], f32[64,32]) {
  %p = (s32[]{:T(128)}, f32[64,32]{1,0:T(8,128)S(1)}) parameter(0)
  %fusion.2 = f32[64,32]{1,0:T(8,128)} fusion(%p), kind=kLoop, calls=%f, \
metadata={op_name="jit(step)/jvp(views)/while/body/mul"}, \
backend_config={"window_config":{"estimated_cycles":"79","iteration_bounds":["1","1"]}}
}

%condition (p: (s32[], f32[64,32])) -> pred[] {
  %limit = s32[]{:T(128)} constant(4)
  %i = s32[]{:T(128)} get-tuple-element(%p), index=0
  ROOT %lt = pred[]{:T(512)} compare(%i, %limit), direction=LT
}

ENTRY %main (x: bf16[8192,8192]) -> bf16[8192,8192] {
  %x = bf16[8192,8192]{1,0:T(8,128)(2,1)} parameter(0)
  %while.1 = (s32[]{:T(128)}, f32[64,32]{1,0}) while(%t), condition=%condition, body=%body
  %fusion.1 = bf16[8192,8192]{1,0:T(8,128)(2,1)} fusion(%x, %x), kind=kOutput, calls=%g, \
metadata={op_name="jit(step)/jvp(Towers.encode_image)/image_encoder/blocks_3/mlp/dot_general"}, \
backend_config={"window_config":{"estimated_cycles":"9557312"}}
  %fusion.4 = bf16[8192,8192]{1,0:T(8,128)(2,1)} fusion(%x, %x), kind=kOutput, calls=%g, \
metadata={op_name="jit(step)/jvp(Towers.encode_image)/image_encoder/blocks_4/mlp/dot_general"}, \
backend_config={"window_config":{"estimated_cycles":"9557312"}}
  %attention = bf16[8192,8192]{1,0} custom-call(%x), custom_call_target="tpu_custom_call", \
metadata={op_name="jit(step)/transpose(jvp(Towers.encode_image))/attention/pallas_call"}
  ROOT %copy.1 = bf16[8192,8192]{1,0} copy(%attention)
}
"""


def test_cycles_of_loops_and_layers():
    costs = cycle_costs(hlo.parse(PROGRAM), V5E)
    assert sum(cost.cycles * cost.times for cost in costs) == 4 * 79 + 2 * 9557312
    layers = merged(costs)[0]
    assert (layers.times, layers.cycles) == (2, 9557312)
    assert layers.total == pytest.approx(2 * 9557312 / 1.5e9)


def test_a_pallas_kernel_is_bounded_by_its_bytes():
    (kernel,) = [cost for cost in cycle_costs(hlo.parse(PROGRAM), V5E) if not cost.cycles]
    assert kernel.bytes == 2 * 2 * 8192**2
    assert kernel.seconds == pytest.approx(kernel.bytes / 819e9)
    parts = by_part(cycle_costs(hlo.parse(PROGRAM), V5E))
    assert parts["image encoder backward"] == kernel.seconds
    assert parts["views"] == pytest.approx(4 * 79 / 1.5e9)


@pytest.mark.parametrize(
    ("op_name", "part"),
    [
        ("jit(step)/jvp(views)/while/body/select_n", "views"),
        ("jit(step)/jvp(vmap(Towers.encode_metadata))/block0/mul", "metadata encoder forward"),
        ("jit(step)/transpose(jvp(Towers.encode_image))/norm/mul", "image encoder backward"),
        ("jit(step)/transpose(jvp(Towers.head))/heads_image_ssl/norm1/div", "heads"),
        ("jit(step)/transpose(jvp())/shard_map/ppermute", "losses"),
        ("jit(step)/optimizer/sqrt", "optimizer"),
        ("jit(step)/add", "other"),
        ("", "other"),
    ],
)
def test_parts_of_a_step(op_name, part):
    assert part_of(op_name) == part
