"""Attention over short sequences on a TPU: all of a sequence and its weights in fast memory.

XLA writes the float32 weights of every head to memory and reads them again, three times for the
gradient. Here a Pallas kernel takes one sequence at a time, recomputes its weights in the backward
pass, and reads and writes only queries, keys, values and their gradients, as the projection lays
them out.

Source of the recomputation: Dao et al., "FlashAttention", NeurIPS 2022.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float

from satmip_jax.distributed.sharding import BATCH

MAX_TOKENS = 1024  # the float32 weights of one head take 4 MiB of a core's 16 MiB then


def attend_projection(
    qkv: Float[Array, "batch tokens channels"],
    heads: int,
    mesh: Mesh | None = None,
    *,
    interpret: bool = False,
) -> Float[Array, "batch tokens width"]:
    """Compute softmax attention from the fused projection, with softmax in float32.

    Args:
        qkv: queries, keys and values, ordered (3, heads, head width), float32 or bfloat16.
        heads: number of heads.
        mesh: over whose devices the batch is sharded: each runs the kernel on its rows. Without
            it, or with rows that cannot be divided, as at initialization, each runs it on all rows.
        interpret: run the kernel as plain JAX on any device, to test it.

    Returns:
        The attended values, (heads, head width), in the dtype of `qkv`.
    """

    def run(qkv: Array) -> Array:
        return _attend(qkv, heads, interpret)

    if mesh is not None and mesh.size > 1 and qkv.shape[0] % mesh.size == 0:
        rows = PartitionSpec(BATCH)
        return jax.shard_map(run, mesh=mesh, in_specs=rows, out_specs=rows, check_vma=False)(qkv)
    return run(qkv)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _attend(qkv: Array, heads: int, interpret: bool) -> Array:
    return _call(_forward_kernel, heads, interpret, qkv.shape[-1] // 3, qkv)


def _forward(qkv: Array, heads: int, interpret: bool) -> tuple[Array, Array]:
    return _attend(qkv, heads, interpret), qkv


def _backward(heads: int, interpret: bool, qkv: Array, grad: Array) -> tuple[Array]:
    return (_call(_backward_kernel, heads, interpret, qkv.shape[-1], qkv, grad),)


_attend.defvjp(_forward, _backward)


def _call(
    kernel: Callable[..., None], heads: int, interpret: bool, width: int, *operands: Array
) -> Array:
    """Run a kernel on one sequence after another; its result has `width` channels."""
    batch, tokens, _ = operands[0].shape

    def sequence(channels: int) -> pl.BlockSpec:
        return pl.BlockSpec((1, tokens, channels), lambda i: (i, 0, 0))

    result: Array = pl.pallas_call(
        functools.partial(kernel, heads=heads),
        grid=(batch,),
        in_specs=[sequence(x.shape[-1]) for x in operands],
        out_specs=sequence(width),
        out_shape=jax.ShapeDtypeStruct((batch, tokens, width), operands[0].dtype),
        interpret=interpret,
    )(*operands)
    return result


def _forward_kernel(qkv: Any, out: Any, *, heads: int) -> None:
    for head in range(heads):
        query, key, value = _read(qkv, head, heads)
        weights = _weights(query, key)
        _write(out, head, _product(weights.astype(value.dtype), value))


def _backward_kernel(qkv: Any, grad: Any, out: Any, *, heads: int) -> None:
    for head in range(heads):
        query, key, value = _read(qkv, head, heads)
        width = query.shape[-1]
        by_out = grad[0, :, head * width : (head + 1) * width]
        weights = _weights(query, key)
        by_weights = _product(by_out, value, transpose="right")
        mean = jnp.sum(weights * by_weights, axis=-1, keepdims=True)
        by_logits = (weights * (by_weights - mean) * _scale(query)).astype(key.dtype)
        _write(out, head, _product(by_logits, key))
        _write(out, heads + head, _product(by_logits, query, transpose="left"))
        by_value = _product(weights.astype(by_out.dtype), by_out, transpose="left")
        _write(out, 2 * heads + head, by_value)


def _read(qkv: Any, head: int, heads: int) -> tuple[Array, Array, Array]:
    """Return queries, keys and values (tokens, head width) of one head."""
    width = qkv.shape[-1] // (3 * heads)
    starts = [(part * heads + head) * width for part in range(3)]
    query, key, value = (qkv[0, :, start : start + width] for start in starts)
    return query, key, value


def _write(out: Any, position: int, x: Array) -> None:
    """Write the channels of one head."""
    width = x.shape[-1]
    out[0, :, position * width : (position + 1) * width] = x.astype(out.dtype)


def _scale(query: Array) -> np.float32:
    return np.float32(query.shape[-1] ** -0.5)


def _weights(query: Array, key: Array) -> Array:
    """Return the softmax over the keys, float32, (queries, keys)."""
    logits = _product(query, key, transpose="right") * _scale(query)
    exponentials = jnp.exp(logits - jnp.max(logits, axis=-1, keepdims=True))
    return exponentials / jnp.sum(exponentials, axis=-1, keepdims=True)


def _product(a: Array, b: Array, transpose: str = "") -> Array:
    """Return a b, a b^T or a^T b, in float32."""
    axes = {"": (1, 0), "right": (1, 1), "left": (0, 0)}[transpose]
    dimensions = (((axes[0],), (axes[1],)), ((), ()))
    return jax.lax.dot_general(a, b, dimensions, preferred_element_type=jnp.float32)
