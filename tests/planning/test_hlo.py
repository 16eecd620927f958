"""The parser of compiled programs, on lines of programs that XLA compiled for a TPU and a GPU."""

import jax
import jax.numpy as jnp
import pytest

from satmip_jax.planning import hlo

# A loop of a program for a v5e; its length is in the condition.
LOOP = """
HloModule jit_step, is_scheduled=true, entry_computation_layout={(f32[8]{0})->f32[8]{0}}

%wide.condition (wide.param.41: (s32[], f32[4,32], /*index=5*/s32[])) -> pred[] {
  %constant.1827.clone.1 = s32[]{:T(128)} constant(4)
  %wide.param.41 = (s32[]{:T(128)}, f32[4,32]{1,0:T(4,128)S(1)}) parameter(0)
  %get-tuple-element.2175 = s32[]{:T(128)} get-tuple-element(%wide.param.41), index=0
  ROOT %lt.472 = pred[]{:T(512)} compare(%get-tuple-element.2175, %constant.1827.clone.1), \
direction=LT, metadata={op_name="jit(step)/jvp()/while/cond/lt" stack_frame_id=853}
}

%wide.body (wide.param.42: (s32[], f32[4,32])) -> (s32[], f32[4,32]) {
  %wide.param.42 = (s32[]{:T(128)}, /*index=5*/f32[4,32]{1,0:T(4,128)S(1)}) parameter(0)
  %get-tuple-element.9 = f32[4,32]{1,0:T(4,128)S(1)} get-tuple-element(%wide.param.42), index=1
  %fusion.3 = f32[4,32]{1,0:T(4,128)S(1)} fusion(%get-tuple-element.9), kind=kLoop, \
calls=%fused_computation.3, metadata={op_name="jit(step)/jvp()/while/body/add" stack_frame_id=1}
  ROOT %tuple.5 = (s32[]{:T(128)}, f32[4,32]{1,0:T(4,128)S(1)}) tuple(%add.1, /*index=1*/%fusion.3)
}

%fused_computation.3 (param_0.1: f32[4,32]) -> f32[4,32] {
  %param_0.1 = f32[4,32]{1,0:T(4,128)} parameter(0)
  ROOT %add.2 = f32[4,32]{1,0:T(4,128)S(1)} add(%param_0.1, %param_0.1)
}

ENTRY %main.12_spmd (param: f32[8]) -> f32[8] {
  %while.7 = (s32[]{:T(128)}, f32[4,32]{1,0:T(4,128)S(1)}) while(%tuple.356), \
condition=%wide.condition, body=%wide.body, metadata={op_name="jit(step)/jvp()/while"}
}

FileNames
1 "step.py"
"""


def test_operations_of_a_loop_run_as_often_as_its_condition_allows():
    module = hlo.parse(LOOP)
    assert module.entry == "main.12_spmd"
    runs = {operation.name: times for operation, times in module.executions()}
    assert runs["fusion.3"] == 4
    assert runs.keys().isdisjoint({"while.7", "add.2"})
    fused = {operation.name: times for operation, times in module.executions(fused=True)}
    assert fused["add.2"] == 4
    assert "fusion.3" not in fused


def test_parts_of_a_line():
    fusion = hlo.parse(LOOP).computations["wide.body"]["fusion.3"]
    assert fusion.kind == "fusion"
    assert fusion.shapes == (hlo.Shape("f32", (4, 32)),)
    assert fusion.bytes == 4 * 32 * 4
    assert fusion.operands == ("get-tuple-element.9",)
    assert fusion.called == ("fused_computation.3",)
    assert fusion.op_name == "jit(step)/jvp()/while/body/add"
    root = hlo.parse(LOOP).computations["wide.body"]["tuple.5"]
    assert root.is_root
    assert root.operands == ("add.1", "fusion.3")


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("bf16[2,3]{1,0:T(8,128)(2,1)S(1)}", 12),
        ("(f32[], pred[5], /*index=2*/s8[3])", 12),
        ("f8e4m3fn[7]", 7),
        ("u4[6]{0}", 3),
        ("token[]", 0),
        ("c64[2]", 16),
    ],
)
def test_bytes_of_types(text, size):
    assert sum(shape.bytes for shape in hlo.shapes(text)) == size


def test_known_trip_counts_and_unknown_ones():
    def counted(x):
        return jax.lax.fori_loop(0, 5, lambda i, y: jnp.sin(y), x)

    def open_ended(x):
        return jax.lax.while_loop(lambda y: jnp.sum(y) < 9, lambda y: y + jnp.exp(y), x)

    trips = []
    for function in (counted, open_ended):
        text = jax.jit(function).lower(jnp.ones(64)).compile().as_text()
        module = hlo.parse(text)
        trips += [
            module.trips(operation)
            for name in module.computations
            for operation in module.operations(name)
            if operation.kind == "while"
        ]
    assert trips == [5, None]
