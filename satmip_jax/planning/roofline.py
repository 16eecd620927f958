"""Lower bound of a GPU step: the bytes and FLOPs of each kernel of its compiled program.

A kernel takes at least the time to move its bytes at the memory's bandwidth, and at least that of
its products at the peak of their dtype; kernels run one after the other. Launches, caches, and what
lies between a kernel and these limits are left out, so a step cannot be faster, and will be slower.
A real card may get other kernels, as XLA chooses some of them by timing.

Source: Williams et al. 2009, "Roofline: An Insightful Visual Performance Model".
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

from satmip_jax.planning.accelerators import Accelerator
from satmip_jax.planning.costs import Cost, shape_of
from satmip_jax.planning.hlo import Module, Operation

# Operations that no kernel runs for.
_NO_KERNEL = {
    "parameter", "constant", "get-tuple-element", "tuple", "bitcast", "after-all", "iota",
    "partition-id", "replica-id",
}  # fmt: skip
_ALIASES = ("bitcast", "reshape")
_SLICES = ("slice", "dynamic-slice")
# Fused operations that read more elements of an operand than the fusion has results.
_READ_ALL = {
    "reduce", "dot", "fusion", "dynamic-update-slice", "reduce-window", "scatter", "sort",
    "convolution",
}  # fmt: skip
COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "collective-permute", "all-to-all")


def kernel_costs(module: Module, accelerator: Accelerator) -> list[Cost]:
    """Return the cost of every kernel of a program; transfers between devices are not included.

    Args:
        module: the program of one device.
        accelerator: a GPU.
    """
    return list(_costs(module, accelerator))


def _costs(module: Module, accelerator: Accelerator) -> Iterator[Cost]:
    for operation, times in module.executions():
        kind = operation.kind
        if kind in _NO_KERNEL or kind.endswith("-done") or _is_collective(kind):
            continue
        size = traffic(module, operation)
        products = list(_products(module, operation))
        seconds = sum(flops / _peak(accelerator, precision) for flops, precision in products)
        memory = size / accelerator.bandwidth
        yield Cost(
            name=operation.name,
            op_name=operation.op_name,
            shape=shape_of(operation),
            seconds=max(seconds, memory),
            times=times,
            bytes=size,
            flops=sum(flops for flops, _ in products),
            by_products=seconds > memory,
        )


def _is_collective(kind: str) -> bool:
    return kind.removesuffix("-start") in COLLECTIVES


def _peak(accelerator: Accelerator, precision: str) -> float:
    return {"bf16": accelerator.bf16, "tf32": accelerator.tf32, "f32": accelerator.f32}[precision]


def traffic(module: Module, operation: Operation) -> int:
    """Return the bytes that a kernel moves at least: operands read once, results written once.

    Of an operand that is only sliced, the slices count; of an array that is updated in place, the
    update; the workspace of a library call does not.
    """
    kind = operation.kind
    if kind == "fusion":
        return sum(_fusion_traffic(module, operation))
    written = operation.bytes
    if kind in _SLICES:
        return 2 * written
    if kind == "dynamic-update-slice":
        update = module.find(operation, operation.operands[1])
        return 2 * (update.bytes if update else written)
    if kind == "custom-call":
        written -= _workspace(operation)
    return written + sum(operand.bytes for operand in module.inputs(operation))


def _workspace(call: Operation) -> int:
    """Return the bytes of the scratch memory that a library call lists as its last result."""
    last = call.shapes[-1] if call.shapes else None
    scratch = {"gemm": "s8", "matmul": "s8", "fmha": "u8", "conv": "u8"}
    for library, dtype in scratch.items():
        if last and len(call.shapes) > 1 and library in _callee(call) and last.dtype == dtype:
            return last.bytes
    return 0


def _callee(call: Operation) -> str:
    return call.attribute(r'custom_call_target="([^"]*)"') or ""


def _fusion_traffic(module: Module, fusion: Operation) -> tuple[int, int]:
    """Return the bytes that a fusion reads and writes."""
    inner = list(module.operations(fusion.called[0]))
    users: dict[str, list[Operation]] = {}
    for operation in inner:
        for name in dict.fromkeys(operation.operands):
            users.setdefault(name, []).append(operation)

    def uses(name: str) -> list[tuple[str, Operation]]:
        """Return the operations that read an array, with the name they know it by."""
        found: list[tuple[str, Operation]] = []
        for user in users.get(name, ()):
            behind = uses(user.name) if user.kind in _ALIASES else []
            found += behind or [(name, user)]
        return found

    reads_all = any(operation.kind in _READ_ALL for operation in inner)
    results = sum(shape.elements for shape in fusion.shapes)
    read = 0
    for parameter in inner:
        if parameter.kind == "parameter":
            read += _read(parameter, uses(parameter.name), results, reads_all)
    written = fusion.bytes
    for update in inner:
        if update.kind == "dynamic-update-slice":  # in place
            value = module.find(update, update.operands[1])
            written += (value.bytes if value else 0) - update.bytes
    return read, max(written, 0)


def _read(
    parameter: Operation, uses: list[tuple[str, Operation]], results: int, reads_all: bool
) -> int:
    """Return the bytes that a fusion reads of one operand."""
    size = parameter.bytes
    if uses and all(_is_partial(name, user) for name, user in uses):
        slices = {
            (user.type, user.arguments, re.sub(r", metadata.*", "", user.attributes)): user.bytes
            for _, user in uses
            if user.kind in _SLICES
        }
        return min(sum(slices.values()), size)
    if reads_all or not parameter.shapes:
        return size
    # each result reads one element of it, per use: less than all if it is indexed
    width = size // max(1, parameter.shapes[0].elements)
    return min(size, results * width * max(1, len(uses)))


def _is_partial(name: str, user: Operation) -> bool:
    """Whether an operation reads a slice of an array, or updates it in place."""
    return user.kind in _SLICES or (
        user.kind == "dynamic-update-slice" and user.operands[0] == name
    )


def _products(module: Module, operation: Operation) -> Iterator[tuple[int, str]]:
    """Yield the FLOPs and the precision of the products in a kernel."""
    if operation.kind == "dot":
        yield _dot(module, operation)
    elif operation.kind == "fusion":
        for name in operation.called:
            for inner in module.operations(name):
                yield from _products(module, inner)
    elif operation.kind == "custom-call":
        callee = _callee(operation)
        if "gemm" in callee or "matmul" in callee:
            yield _library_product(module, operation)
        elif "fmha" in callee:
            yield from _attention(module, operation)


def _dot(module: Module, dot: Operation) -> tuple[int, str]:
    factor = module.find(dot, dot.operands[0])
    axes = dot.attribute(r"lhs_contracting_dims=\{([\d,]*)\}") or ""
    dtype, flops = _contraction(factor, dot, axes)
    highest = re.search(r"operand_precision=\{highest", dot.attributes) is not None
    bf16 = "algorithm=dot_bf16" in dot.attributes
    return flops, "bf16" if bf16 else _precision(dtype, highest)


def _library_product(module: Module, call: Operation) -> tuple[int, str]:
    factor = module.find(call, call.operands[0])
    axes = call.attribute(r'"lhs_contracting_dimensions":\[([^\]]*)\]') or ""
    dtype, flops = _contraction(factor, call, axes)
    highest = '"operand_precision":["HIGHEST' in call.attributes
    return flops, _precision(dtype, highest)


def _contraction(factor: Operation | None, product: Operation, axes: str) -> tuple[str, int]:
    """Return the dtype of the first factor and the FLOPs, two per multiply-add."""
    if factor is None or not factor.shapes:
        return "f32", 0
    flops = 2 * product.shapes[0].elements
    for axis in re.findall(r"\d+", axes):
        flops *= factor.shapes[0].dims[int(axis)]
    return factor.shapes[0].dtype, flops


def _precision(dtype: str, highest: bool) -> str:
    if dtype in ("bf16", "f16"):
        return "bf16"
    return "f32" if highest else "tf32"


def _attention(module: Module, call: Operation) -> Iterator[tuple[int, str]]:
    """Yield those of cuDNN's attention, from the shape (b, heads, queries, keys) of its weights.

    Two products forward, five backward, which computes the weights again.
    """
    weights = call.attribute(r'"intermediate_tensor_shape": *\{[^}]*?"dimensions": *\[([^\]]*)\]')
    queries = module.find(call, call.operands[0])
    if weights and queries and queries.shapes:
        scores = math.prod(map(int, re.findall(r"\d+", weights)))
        products = 5 if "Backward" in _callee(call) else 2
        yield 2 * products * scores * queries.shapes[0].dims[-1], "bf16"
