"""Model FLOPs: those of the matrix products that the architecture asks for.

Counted from the traced program, before any compiler: recomputation, padding and what a compiler
adds do not count, so that a utilisation computed from it (MFU, Chowdhery et al. 2022, PaLM,
appendix B) is that of useful work.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from satmip_jax.augmentation.views import augment
from satmip_jax.models import example_batch
from satmip_jax.training.step import Program, augmentation

# FLOP/s of one device at bfloat16 without sparsity, by JAX's `device_kind`; from the data sheets.
PEAKS = {
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H200": 989e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5": 459e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
}
BACKWARD = 3  # forward, and in the backward pass one product for each of the two factors


def matmul_flops(function: Callable[..., Any], *arguments: Any) -> int:
    """FLOPs, two for each multiply-add, of the matrix products in `function(*arguments)`.

    Args:
        function: what jax can trace.
        *arguments: arrays or their shapes.

    Example:
        >>> matmul_flops(jnp.matmul, jnp.zeros((2, 3)), jnp.zeros((3, 4)))
        48
    """
    return _count(jax.make_jaxpr(function)(*arguments).jaxpr)


def peak_flops(device_kind: str, dtype: str) -> float | None:
    """FLOP/s that the maker of a device promises; None where we do not know it.

    Example:
        >>> peak_flops("NVIDIA H200", "bfloat16")
        989000000000000.0
    """
    return PEAKS.get(device_kind) if dtype == "bfloat16" else None


def step_flops(program: Program) -> dict[str, int]:
    """Model FLOPs of one training step over the global batch, forward and backward, by part."""
    config, towers, method = program.config, program.towers, program.method
    batch, stored_side = config.optimizer.batch_size, program.schema.image_size
    params = program.abstract.params

    def apply(name: str, *inputs: Any) -> int:
        def call(params: Any, *inputs: Any) -> Any:
            return towers.apply({"params": params}, *inputs, method=name)

        return BACKWARD * batch * matmul_flops(call, params, *inputs)

    image, metadata = jax.tree.map(lambda x: x[:1], example_batch(config, program.schema))
    parts = {"image encoder": method.views * apply("encode_image", image)}
    width = {"image": _width(towers, params, "encode_image", image)}
    if towers.has_metadata:
        parts["metadata encoder"] = apply("encode_metadata", metadata)
        width["metadata"] = _width(towers, params, "encode_metadata", metadata)
    heads = 0
    for name, described in method.heads(program.schema).items():
        # statistics of a batch norm need two rows; products are counted for one
        rows = jax.ShapeDtypeStruct((2, width[described.input]), jnp.float32)

        def head(params: Any, rows: Any, name: str = name) -> Any:
            return towers.apply({"params": params}, name, rows, method="head")

        heads += BACKWARD * batch * described.views * matmul_flops(head, params, rows) // 2
    parts["heads"] = heads
    parts["loss"] = BACKWARD * sum(scores.flops for scores in method.scores(batch).values())
    stored = jax.ShapeDtypeStruct((1, stored_side, stored_side, 3), jnp.uint8)
    drawn = augmentation(config)
    draw = matmul_flops(lambda key, x: augment(key, x, drawn), jax.random.key(0), stored)
    parts["views"] = method.views * batch * draw  # not differentiated
    return parts


def _width(towers: Any, params: Any, method: str, inputs: Any) -> int:
    out = jax.eval_shape(lambda p, x: towers.apply({"params": p}, x, method=method), params, inputs)
    return out.shape[-1]


def _count(jaxpr: Any) -> int:
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            inner = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
            total += 2 * inner * math.prod(equation.outvars[0].aval.shape)
        times = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
        for value in equation.params.values():
            for inner_jaxpr in value if isinstance(value, tuple | list) else (value,):
                inner_jaxpr = getattr(inner_jaxpr, "jaxpr", inner_jaxpr)
                if hasattr(inner_jaxpr, "eqns"):
                    total += times * _count(inner_jaxpr)
    return total
