"""Model FLOPs of a training step: those of the architecture's matrix products.

Counted from the traced program, before compilation. Recomputation, padding and additions of the
compiler do not count, so that the utilization (MFU, Chowdhery et al. 2022, PaLM, appendix B) is
that of useful work.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from satmip_jax.augmentation.views import augment
from satmip_jax.distributed.target import Target
from satmip_jax.models import build_towers, example_batch
from satmip_jax.planning.accelerators import accelerator_of
from satmip_jax.training.step import Program, augmentation

TRAINING = 3  # products per forward product: itself, and one for the gradient of each factor


def matmul_flops(function: Callable[..., Any], *arguments: Any) -> int:
    """Count the FLOPs of the matrix products in `function(*arguments)`, two per multiply-add.

    Args:
        function: traceable by JAX.
        *arguments: arrays, or their shapes and dtypes.

    Example:
        >>> from satmip_jax.planning.flops import matmul_flops
        >>> matmul_flops(jnp.matmul, jnp.zeros((2, 3)), jnp.zeros((3, 4)))
        48
    """
    return _count(jax.make_jaxpr(function)(*arguments).jaxpr)


def peak_flops(device_kind: str, dtype: str) -> float | None:
    """Return the peak FLOP/s of a device by its data sheet; None if unknown.

    Args:
        device_kind: as `jax.Device.device_kind`.
        dtype: of the products.

    Example:
        >>> from satmip_jax.planning.flops import peak_flops
        >>> peak_flops("NVIDIA H200", "bfloat16")
        989000000000000.0
    """
    accelerator = accelerator_of(device_kind)
    return accelerator.bf16 if accelerator and dtype == "bfloat16" else None


def step_flops(program: Program) -> dict[str, int]:
    """Count the model FLOPs of one step over the global batch, forward and backward.

    Returns:
        FLOPs of each part: "image encoder", "metadata encoder" if there is one, "heads", "loss"
        (the score matrices), and "views" (augmentation, which has no backward pass).
    """
    config, method = program.config, program.method
    # products inside the fused kernels of an accelerator cannot be counted; those of a CPU can
    towers = build_towers(config, program.schema, method, Target("cpu"))
    batch, stored_side = config.optimizer.batch_size, program.schema.image_size
    params = program.abstract.params

    def apply(name: str, *inputs: Any) -> int:
        def call(params: Any, *inputs: Any) -> Any:
            return towers.apply({"params": params}, *inputs, method=name)

        return TRAINING * batch * matmul_flops(call, params, *inputs)

    image, metadata = jax.tree.map(lambda x: x[:1], example_batch(config, program.schema))
    parts = {"image encoder": method.views * apply("encode_image", image)}
    width = {"image": _width(towers, params, "encode_image", image)}
    if towers.has_metadata:
        parts["metadata encoder"] = apply("encode_metadata", metadata)
        width["metadata"] = _width(towers, params, "encode_metadata", metadata)
    heads = 0
    for name, head in method.heads(program.schema).items():
        # batch statistics need two rows; the products are counted for one
        rows = jax.ShapeDtypeStruct((2, width[head.input]), jnp.float32)

        def project(params: Any, rows: Any, name: str = name) -> Any:
            return towers.apply({"params": params}, name, rows, method="head")

        heads += TRAINING * batch * head.views * matmul_flops(project, params, rows) // 2
    parts["heads"] = heads
    parts["loss"] = TRAINING * sum(scores.flops for scores in method.scores(batch).values())
    stored = jax.ShapeDtypeStruct((1, stored_side, stored_side, 3), jnp.uint8)
    drawn = augmentation(config)
    draw = matmul_flops(lambda key, x: augment(key, x, drawn), jax.random.key(0), stored)
    parts["views"] = method.views * batch * draw
    return parts


def _width(towers: Any, params: Any, method: str, inputs: Any) -> int:
    """Width of an encoder's output."""
    out = jax.eval_shape(lambda p, x: towers.apply({"params": p}, x, method=method), params, inputs)
    return out.shape[-1]


def _count(jaxpr: Any) -> int:
    """FLOPs of the matrix products in a jaxpr and those it contains."""
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
