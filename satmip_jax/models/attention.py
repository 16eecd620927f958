"""Multi-head attention: cuDNN's fused kernel where it serves, XLA's elsewhere."""

import functools
from collections.abc import Callable
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, Int32, Key

from satmip_jax.distributed.target import Target
from satmip_jax.models.layers import XAVIER, XAVIER_QKV, Dense, Initializer, drop, recomputed
from satmip_jax.models.tpu_attention import MAX_TOKENS, attend_projection

Implementation = Literal["auto", "einsum", "xla", "cudnn", "pallas"]


def resolve_attention(
    implementation: Implementation,
    dtype: DTypeLike,
    head_width: int,
    target: Target | None = None,
) -> Literal["einsum", "xla", "cudnn", "pallas"]:
    """Choose the implementation behind "auto".

    Args:
        implementation: "auto", or a fixed choice, which is returned as it is.
        dtype: of queries, keys and values.
        head_width: width of one head.
        target: device that the program is compiled for; None for JAX's default device.

    Returns:
        For "auto": "cudnn" where it is supported, "pallas" on a TPU whose mesh is known, "einsum"
        on a CPU and "xla" elsewhere.

    Raises:
        ValueError: `implementation` is none of `Implementation`.
    """
    if implementation not in get_args(Implementation):
        raise ValueError(
            f"attention must be one of {', '.join(get_args(Implementation))}, not "
            f"{implementation!r}"
        )
    if implementation != "auto":
        return implementation
    target = target or Target.of()
    fits_cudnn = jnp.dtype(dtype) in (jnp.bfloat16, jnp.float16) and head_width % 8 == 0
    if target.has_cudnn_attention and fits_cudnn and head_width <= 128:
        return "cudnn"
    if target.platform == "tpu" and target.mesh is not None:
        return "pallas"
    return "einsum" if target.platform == "cpu" else "xla"


def attend(
    query: Float[Array, "batch queries heads head_width"],
    key: Float[Array, "batch keys heads head_width"],
    value: Float[Array, "batch keys heads head_width"],
    *,
    lengths: Int[Array, " batch"] | None = None,
    implementation: Implementation = "auto",
    dropout: Callable[[Array], Array] | None = None,
) -> Float[Array, "batch queries heads head_width"]:
    """Compute softmax attention, `softmax(q k^T / sqrt(head_width)) v`, with softmax in float32.

    Args:
        query: the queries, float32 or bfloat16.
        key: the keys, of the same dtype.
        value: the values, of the same dtype.
        lengths: for each row, the number of leading keys that are not padding; None for all of
            them. A row of length 0 attends to its first key, because no key at all would be 0/0.
        implementation: "cudnn" and "xla" are those of `jax.nn.dot_product_attention`; "einsum" is
            the same mathematics with the heads moved to the batch first, which XLA runs faster on
            CPU; "pallas" is "xla" here, see `Attention`; "auto" chooses. JAX rejects "cudnn" with
            an odd number of queries or keys if a gradient is taken.
        dropout: applied to the attention weights (batch, heads, queries, keys). It forces
            "einsum", the only implementation that exposes them.

    Returns:
        The attended values, in the dtype of `query`.
    """
    chosen = resolve_attention(implementation, query.dtype, query.shape[-1])
    if lengths is not None:
        lengths = jnp.maximum(lengths.astype(jnp.int32), jnp.int32(1))
    if dropout is None and chosen in ("xla", "pallas"):
        run = recomputed(functools.partial(jax.nn.dot_product_attention, implementation="xla"))
        return run(query, key, value, key_value_seq_lengths=lengths)
    if dropout is None and chosen == "cudnn":  # keeps no attention weights for the gradient
        return jax.nn.dot_product_attention(
            query,
            key,
            value,
            query_seq_lengths=None if lengths is None else repeat_per_row(query, query.shape[1]),
            key_value_seq_lengths=lengths,
            implementation="cudnn",
        )
    # (b, t, h, d) . (b, s, h, d) -> (b, h, t, s)
    logits = jnp.einsum("bthd,bshd->bhts", query, key, preferred_element_type=jnp.float32)
    logits = logits * np.float32(query.shape[-1] ** -0.5)
    if lengths is not None:
        real = jnp.arange(key.shape[1], dtype=jnp.int32)[None] < lengths[:, None]  # (b, s)
        logits = jnp.where(real[:, None, None, :], logits, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(logits, axis=-1).astype(value.dtype)
    if dropout is not None:
        weights = dropout(weights)
    # (b, h, t, s) . (b, s, h, d) -> (b, t, h, d)
    return jnp.einsum("bhts,bshd->bthd", weights, value)


def repeat_per_row(x: Float[Array, "batch ..."], number: int) -> Int32[Array, " batch"]:
    """Return `number` for each row of `x`.

    cuDNN's call needs this array sharded like `x` and batched by an enclosing `vmap`. A constant,
    or anything that XLA can fold to one, is neither, so it is computed from `x`.
    """
    return jnp.maximum((x.reshape(x.shape[0], -1)[:, 0] > 0).astype(jnp.int32), jnp.int32(number))


class Attention(nn.Module):
    """Multi-head self-attention with one fused projection to queries, keys and values.

    The output features of `qkv` are ordered (3, heads, head width), like timm's.

    Attributes:
        heads: number of heads.
        dropout: rate for the attention weights, in training only.
        implementation: see `attend`. "pallas" is a TPU's kernel, for all queries of sequences
            without padding.
        target: device that it is compiled for; None for JAX's default device.
        qkv_init: initializer of the projection to queries, keys and values.
        output_init: initializer of the output projection.
        dtype: of the computation; parameters are float32.
    """

    heads: int
    dropout: float = 0.0
    implementation: Implementation = "auto"
    target: Target | None = None
    qkv_init: Initializer = XAVIER_QKV
    output_init: Initializer = XAVIER
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch tokens width"],
        lengths: Int[Array, " batch"] | None = None,
        *,
        queries: int | None = None,
        keys: Key[Array, " batch"] | None = None,
    ) -> Float[Array, "batch queries width"]:
        """Let tokens attend to each other.

        Args:
            x: the tokens.
            lengths: for each row, the number of leading tokens that are not padding; None for all.
            queries: number of leading tokens to compute an output for; None for all of them.
            keys: in training one per row, for the dropout; None for none.

        Returns:
            The attended tokens; `queries` of them if that is given.

        Raises:
            ValueError: the width is not a multiple of `heads`.
        """
        batch, tokens, width = x.shape
        if width % self.heads:
            raise ValueError(f"width {width} is not a multiple of heads {self.heads}")
        head_width = width // self.heads
        dropout = None
        if keys is not None and self.dropout:
            dropout = functools.partial(drop, keys=keys, rate=self.dropout)
        outputs = tokens if queries is None else queries
        padded = outputs
        target = self.target or Target.of()
        chosen = resolve_attention(self.implementation, self.dtype, head_width, target)
        layer = functools.partial(Dense, gradient_dtype=target.gradient_dtype, dtype=self.dtype)
        project = functools.partial(layer, 3 * width, kernel_init=self.qkv_init, name="qkv")
        output = layer(width, kernel_init=self.output_init, name="out")
        is_plain = dropout is None and lengths is None and outputs == tokens <= MAX_TOKENS
        if chosen == "pallas" and is_plain:
            interpret = target.platform != "tpu"
            y = attend_projection(project()(x), self.heads, target.mesh, interpret=interpret)
            return output(y)
        if dropout is None and chosen == "cudnn" and (tokens % 2 or outputs % 2):
            # JAX rejects an odd number of tokens for cuDNN in training: add one and mask it.
            # In `attend` this would cost a copy of queries, keys and values.
            x = jnp.pad(x, ((0, 0), (0, tokens % 2), (0, 0)))
            lengths = repeat_per_row(x, tokens) if lengths is None else lengths
            padded += outputs % 2
        parts = project(parts=3)(x)
        query, key, value = (part.reshape(batch, -1, self.heads, head_width) for part in parts)
        y = attend(
            query[:, :padded],
            key,
            value,
            lengths=lengths,
            implementation=chosen,
            dropout=dropout,
        )
        return output(y.reshape(batch, padded, width))[:, :outputs]
