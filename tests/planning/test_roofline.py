"""Bytes and FLOPs of kernels, by hand, on operations of a program compiled for an H100."""

import pytest

from satmip_jax.planning import hlo
from satmip_jax.planning.accelerators import ACCELERATORS
from satmip_jax.planning.roofline import kernel_costs, traffic

H100 = ACCELERATORS["h100"]


def module_of(entry: str, *computations: str) -> hlo.Module:
    header = "ENTRY %main (x: f32[8]) -> f32[8] {\n"
    return hlo.parse("\n".join([*computations, header, entry, "}"]))


def product(dtype: str, precision: str) -> hlo.Module:
    return module_of(f"""
  %x = {dtype}[101376,384]{{1,0}} parameter(0)
  %w = {dtype}[384,1536]{{1,0}} parameter(1)
  %bias = {dtype}[1536]{{0}} parameter(2)
  %custom-call.7 = ({dtype}[101376,1536]{{1,0}}, s8[4194304]{{0}}) custom-call(%x, %w, %bias), \
custom_call_target="__cublas$lt$matmul", metadata={{op_name="jit(step)/fc1/dot_general"}}, \
backend_config={{"gemm_backend_config":{{"dot_dimension_numbers":{{\
"lhs_contracting_dimensions":["1"],"rhs_contracting_dimensions":["0"]}},\
"precision_config":{{"operand_precision":["{precision}","{precision}"]}},"epilogue":"BIAS"}}}}
""")


@pytest.mark.parametrize(
    ("dtype", "precision", "peak"),
    [
        ("bf16", "DEFAULT", 989e12),
        ("f32", "DEFAULT", 494.5e12),
        ("f32", "HIGHEST", 67e12),
    ],
)
def test_a_product_of_cublas(dtype, precision, peak):
    """The workspace is no traffic; the bias is."""
    (cost,) = kernel_costs(product(dtype, precision), H100)
    width = 2 if dtype == "bf16" else 4
    assert cost.flops == 2 * 101376 * 384 * 1536
    assert cost.bytes == width * (101376 * 384 + 384 * 1536 + 1536 + 101376 * 1536)
    assert cost.seconds == pytest.approx(max(cost.bytes / 3352.32e9, cost.flops / peak))
    assert cost.by_products == (cost.flops / peak > cost.bytes / 3352.32e9)


ATTENTION = """
  %q = bf16[512,{queries},6,64]{{3,2,1,0}} parameter(0)
  %k = bf16[512,198,6,64]{{3,2,1,0}} parameter(1)
  %v = bf16[512,198,6,64]{{3,2,1,0}} parameter(2)
  %fmha = (bf16[512,6,{queries},64]{{3,1,2,0}}, f32[512,6,{queries}]{{2,1,0}}, u8[16]{{0}}) \
custom-call(%q, %k, %v), custom_call_target="__cudnn$fmhaSoftmax{backward}", \
backend_config={{"cudnn_fmha_backend_config": {{"fmha_scale": 0.125, "intermediate_tensor_shape": \
{{"element_type": "BF16", "dimensions": ["512", "6", "{queries}", "198"], "tuple_shapes": []}}}}}}
"""


@pytest.mark.parametrize("queries", [198, 2])
@pytest.mark.parametrize(("backward", "products"), [("", 2), ("Backward", 5)])
def test_attention_of_cudnn(queries, backward, products):
    """With few queries too, as in a last block that yields the class token alone."""
    text = ATTENTION.format(queries=queries, backward=backward)
    (cost,) = kernel_costs(module_of(text), H100)
    assert cost.flops == products * 2 * 512 * 6 * queries * 198 * 64
    operands = 2 * 512 * 6 * 64 * (queries + 2 * 198)
    results = 2 * 512 * 6 * queries * 64 + 4 * 512 * 6 * queries
    assert cost.bytes == operands + results


SLICED = """
%wrapped_slice (param_0: f32[256,9]) -> f32[256,4] {
  %param_0 = f32[256,9]{1,0} parameter(0)
  ROOT %slice.1 = f32[256,4]{1,0} slice(%param_0), slice={[0:256], [5:9]}
}
"""
REDUCED = """
%fused_reduce (param_0: bf16[101376,384], param_1: f32[384]) -> f32[256,384] {
  %param_0 = bf16[101376,384]{1,0} parameter(0)
  %param_1 = f32[384]{0} parameter(1)
  %convert.1 = f32[101376,384]{1,0} convert(%param_0)
  %bitcast.2 = f32[256,396,384]{2,1,0} bitcast(%convert.1)
  ROOT %reduce.1 = f32[256,384]{1,0} reduce(%bitcast.2, %c), dimensions={1}, to_apply=%add
}
"""
STACKED = """
%fused_update (param_0: bf16[12,197,384], param_1: bf16[197,384], param_2: s32[]) -> \
bf16[12,197,384] {
  %param_0 = bf16[12,197,384]{2,1,0} parameter(0)
  %param_1 = bf16[197,384]{1,0} parameter(1)
  %param_2 = s32[] parameter(2)
  %bitcast.4 = bf16[1,197,384]{2,1,0} bitcast(%param_1)
  ROOT %dynamic-update-slice.3 = bf16[12,197,384]{2,1,0} dynamic-update-slice(%param_0, \
%bitcast.4, %param_2, %z, %z)
}
"""
INDEXED = """
%fused_gather (param_0: f32[4096,384], param_1: s32[8]) -> f32[8,384] {
  %param_0 = f32[4096,384]{1,0} parameter(0)
  %param_1 = s32[8]{0} parameter(1)
  ROOT %gather.1 = f32[8,384]{1,0} gather(%param_0, %param_1), offset_dims={1}
}
"""


@pytest.mark.parametrize(
    ("computation", "name", "result", "operands", "size"),
    [
        # only the slice is read
        (SLICED, "wrapped_slice", "f32[256,4]", ["f32[256,9]"], 2 * 256 * 4 * 4),
        # all is read, little is written
        (
            REDUCED,
            "fused_reduce",
            "f32[256,384]",
            ["bf16[101376,384]", "f32[384]"],
            2 * 101376 * 384 + 4 * 384 + 4 * 256 * 384,
        ),
        # the update is read and written in place, with the index
        (
            STACKED,
            "fused_update",
            "bf16[12,197,384]",
            ["bf16[12,197,384]", "bf16[197,384]", "s32[]"],
            2 * 2 * 197 * 384 + 4,
        ),
        # eight rows of a table, and their indices
        (
            INDEXED,
            "fused_gather",
            "f32[8,384]",
            ["f32[4096,384]", "s32[8]"],
            2 * 4 * 8 * 384 + 4 * 8,
        ),
    ],
)
def test_traffic_of_a_fusion(computation, name, result, operands, size):
    lines = [f"  %p{i} = {kind} parameter({i})" for i, kind in enumerate(operands)]
    names = ", ".join(f"%p{i}" for i in range(len(operands)))
    lines.append(f"  %f = {result} fusion({names}), kind=kLoop, calls=%{name}")
    module = module_of("\n".join(lines), computation)
    assert traffic(module, module.computations["main"]["f"]) == size


def test_products_inside_of_a_fusion_in_a_loop_count_every_round():
    fused = """
%gemm_fusion (param_0: bf16[64,32], param_1: bf16[32,16]) -> bf16[64,16] {
  %param_0 = bf16[64,32]{1,0} parameter(0)
  %param_1 = bf16[32,16]{1,0} parameter(1)
  ROOT %dot.1 = bf16[64,16]{1,0} dot(%param_0, %param_1), lhs_contracting_dims={1}, \
rhs_contracting_dims={0}
}
"""
    body = """
%body (t: (bf16[64,32], bf16[32,16])) -> (bf16[64,32], bf16[32,16]) {
  %t = (bf16[64,32]{1,0}, bf16[32,16]{1,0}) parameter(0)
  %a = bf16[64,32]{1,0} get-tuple-element(%t), index=0
  %b = bf16[32,16]{1,0} get-tuple-element(%t), index=1
  %gemm_fusion.1 = bf16[64,16]{1,0} fusion(%a, %b), kind=kCustom, calls=%gemm_fusion
  ROOT %r = (bf16[64,32]{1,0}, bf16[32,16]{1,0}) tuple(%a, %b)
}
"""
    entry = """
  %while.1 = (bf16[64,32]{1,0}, bf16[32,16]{1,0}) while(%init), condition=%c, body=%body, \
backend_config={"known_trip_count":{"n":"12"},"known_init_step":{"init":"0","step":"1"}}
"""
    (cost,) = kernel_costs(module_of(entry, fused, body), H100)
    assert (cost.times, cost.flops) == (12, 2 * 64 * 32 * 16)
    assert cost.bytes == 2 * (64 * 32 + 32 * 16 + 64 * 16)
    assert cost.total == pytest.approx(12 * cost.bytes / 3352.32e9)


def test_transfers_are_no_kernels():
    entry = """
  %x = f32[4096]{0} parameter(0)
  %all-reduce-start = f32[4096]{0} all-reduce-start(%x), replica_groups={{0,1}}, to_apply=%add
  %all-reduce-done = f32[4096]{0} all-reduce-done(%all-reduce-start)
"""
    assert kernel_costs(module_of(entry), H100) == []
