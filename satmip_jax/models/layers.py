"""Transformer layers shared by the image and text encoders, and their initialisers.

Parameters are float32 and are cast to `dtype` (bfloat16 on accelerators) where they are used.
Layer norms, softmax and GELU are computed in float32 whatever `dtype` is.

Parameter names are PyTorch-like (`norm1`, `attention/qkv`, `mlp/fc1`, ...) so that published
weights map onto them by name. The blocks of an `Encoder` are stacked on a leading axis of length
`depth`.
"""

import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, Int32, PRNGKeyArray

Initializer = Callable[..., Array]
Implementation = Literal["auto", "einsum", "xla", "cudnn"]

XAVIER: Initializer = nn.initializers.xavier_uniform()
# Xavier's scale for queries, keys and values as three square matrices, not as one wide matrix.
XAVIER_QKV: Initializer = nn.initializers.variance_scaling(1.0, "fan_in", "uniform")

# The default of torch.nn.Linear and Conv2d: uniform in +-1/sqrt(fan_in).
TORCH_LINEAR: Initializer = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def uniform(bound: float) -> Initializer:
    """Return an initialiser that draws from the uniform distribution on [-bound, bound)."""

    def init(key: PRNGKeyArray, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


# Recomputes a function from its inputs in the backward pass instead of keeping its intermediates.
# Without it a step of ViT-S/16 in bfloat16 keeps the float32 values within every GELU and norm.
# XLA cannot merge the two computations across the loop over blocks, so no barrier is needed.
_recomputed = functools.partial(jax.checkpoint, prevent_cse=False)


@_recomputed
def gelu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return the exact (erf) GELU, computed in float32 and returned in the dtype of `x`.

    `jax.nn.gelu` rounds sqrt(1/2) to bfloat16 and uses erfc, which is slower on CPU.
    """
    y = x.astype(jnp.float32)
    return (0.5 * y * (1 + jax.lax.erf(y * np.float32(0.5**0.5)))).astype(x.dtype)


def dense(features: int, **options: Any) -> nn.Dense:
    """Return an `nn.Dense` that is one product of two matrices, whatever the axes of its input.

    For products with more axes XLA transposes the gradient of the kernel and back, with copies on
    a CPU: a step of a small ViT takes a quarter longer.

    Args:
        features: width of the output.
        **options: other attributes of `nn.Dense`.
    """

    def dot_general(x: Array, kernel: Array, *_: Any, **__: Any) -> Array:
        # Dense always contracts the last axis of x with the first of the kernel.
        rows = x.reshape(-1, x.shape[-1]) @ kernel  # (rows, in) . (in, out) -> (rows, out)
        return rows.reshape(*x.shape[:-1], kernel.shape[-1])

    return nn.Dense(features, dot_general=dot_general, **options)


class LayerNorm(nn.Module):
    """Layer normalisation over the last axis; statistics in float32, output in `dtype`.

    Flax's LayerNorm mixes bfloat16 inputs with float32 statistics, which strict promotion forbids.

    Attributes:
        epsilon: added to the variance; timm uses 1e-6, PyTorch's default is 1e-5.
        dtype: of the output.
    """

    epsilon: float = 1e-6
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*batch width"]) -> Float[Array, "*batch width"]:
        """Normalise each row of `x`."""
        ones, zeros = nn.initializers.ones, nn.initializers.zeros
        shape = (1,) * (x.ndim - 1) + (-1,)
        scale = self.param("scale", ones, (x.shape[-1],), jnp.float32).reshape(shape)
        bias = self.param("bias", zeros, (x.shape[-1],), jnp.float32).reshape(shape)

        @_recomputed
        def normalize(x: Array, scale: Array, bias: Array) -> Array:
            x = x.astype(jnp.float32)
            centred = x - jnp.mean(x, axis=-1, keepdims=True)
            variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
            y = centred * jax.lax.rsqrt(variance + self.epsilon) * scale + bias
            return y.astype(self.dtype)

        return normalize(x, scale, bias)


def _cudnn_supports(dtype: DTypeLike, head_width: int) -> bool:
    """Return whether cuDNN's flash attention supports this dtype and head width on this GPU."""
    if jnp.dtype(dtype) not in (jnp.bfloat16, jnp.float16):
        return False
    if head_width % 8 or head_width > 128 or jax.default_backend() != "gpu":
        return False
    device = jax.local_devices(backend="gpu")[0]
    if "cuda" not in device.client.platform_version:  # AMD
        return False
    return float(device.compute_capability) >= 8.0


def resolve_attention(
    implementation: Implementation, dtype: DTypeLike, head_width: int
) -> Literal["einsum", "xla", "cudnn"]:
    """Choose the implementation behind "auto" for the default backend.

    Args:
        implementation: "auto", or a fixed choice, which is returned as it is.
        dtype: of queries, keys and values.
        head_width: width of one head.

    Returns:
        For "auto": "cudnn" where it is supported, else "einsum" on a CPU and "xla" elsewhere.

    Raises:
        ValueError: `implementation` is none of "auto", "einsum", "xla", "cudnn".
    """
    if implementation not in ("auto", "einsum", "xla", "cudnn"):
        raise ValueError(
            f'attention must be "auto", "einsum", "xla" or "cudnn", not {implementation!r}'
        )
    if implementation != "auto":
        return implementation
    if _cudnn_supports(dtype, head_width):
        return "cudnn"
    return "einsum" if jax.default_backend() == "cpu" else "xla"


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
            CPU; "auto" chooses. JAX rejects "cudnn" with an odd number of queries or keys if a
            gradient is taken.
        dropout: applied to the attention weights (batch, heads, queries, keys). It forces
            "einsum", the only implementation that exposes them.

    Returns:
        The attended values, in the dtype of `query`.
    """
    chosen = resolve_attention(implementation, query.dtype, query.shape[-1])
    if lengths is not None:
        lengths = jnp.maximum(lengths.astype(jnp.int32), jnp.int32(1))
    if dropout is None and chosen == "xla":
        run = _recomputed(functools.partial(jax.nn.dot_product_attention, implementation="xla"))
        return run(query, key, value, key_value_seq_lengths=lengths)
    if dropout is None and chosen == "cudnn":  # keeps no attention weights for the gradient
        return jax.nn.dot_product_attention(
            query,
            key,
            value,
            query_seq_lengths=None if lengths is None else _repeat_per_row(query, query.shape[1]),
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


def _repeat_per_row(x: Float[Array, "batch ..."], number: int) -> Int32[Array, " batch"]:
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
        dropout: rate for the attention weights, in training only; rng "dropout".
        implementation: see `attend`.
        qkv_init: initialiser of the projection to queries, keys and values.
        output_init: initialiser of the output projection.
        dtype: of the computation; parameters are float32.
    """

    heads: int
    dropout: float = 0.0
    implementation: Implementation = "auto"
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
        train: bool = False,
    ) -> Float[Array, "batch queries width"]:
        """Let tokens attend to each other.

        Args:
            x: the tokens.
            lengths: for each row, the number of leading tokens that are not padding; None for all.
            queries: number of leading tokens to compute an output for; None for all of them.
            train: whether to apply dropout.

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
        if train and self.dropout:
            dropout = nn.Dropout(self.dropout, deterministic=False)
        outputs = tokens if queries is None else queries
        padded = outputs
        if dropout is None:
            chosen = resolve_attention(self.implementation, self.dtype, head_width)
            if chosen == "cudnn" and (tokens % 2 or outputs % 2):
                # JAX rejects an odd number of tokens for cuDNN in training: add one and mask it.
                # In `attend` this would cost a copy of queries, keys and values.
                x = jnp.pad(x, ((0, 0), (0, tokens % 2), (0, 0)))
                lengths = _repeat_per_row(x, tokens) if lengths is None else lengths
                padded += outputs % 2
        qkv = dense(3 * width, kernel_init=self.qkv_init, dtype=self.dtype, name="qkv")(x)
        qkv = qkv.reshape(batch, -1, 3, self.heads, head_width)
        y = attend(
            qkv[:, :padded, 0],
            qkv[:, :, 1],
            qkv[:, :, 2],
            lengths=lengths,
            implementation=self.implementation,
            dropout=dropout,
        )
        y = y.reshape(batch, padded, width)
        y = dense(width, kernel_init=self.output_init, dtype=self.dtype, name="out")(y)
        return y[:, :outputs]


class MLP(nn.Module):
    """Linear layer, GELU, linear layer.

    Attributes:
        hidden: width between the layers.
        hidden_init: initialiser of the first layer.
        output_init: initialiser of the second layer.
        dtype: of the computation; parameters are float32.
    """

    hidden: int
    hidden_init: Initializer = XAVIER
    output_init: Initializer = XAVIER
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*batch width"]) -> Float[Array, "*batch width"]:
        """Apply the layers to the last axis."""
        width = x.shape[-1]
        y = dense(self.hidden, kernel_init=self.hidden_init, dtype=self.dtype, name="fc1")(x)
        return dense(width, kernel_init=self.output_init, dtype=self.dtype, name="fc2")(gelu(y))


class Block(nn.Module):
    """A pre-norm Transformer block: `x + attention(norm1(x))`, then `x + mlp(norm2(x))`.

    Attributes are those of `Encoder`.
    """

    heads: int
    mlp_dim: int
    attention: Implementation = "auto"
    epsilon: float = 1e-6
    qkv_init: Initializer = XAVIER_QKV
    hidden_init: Initializer = XAVIER
    output_init: Initializer = XAVIER
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch tokens width"], lengths: Int[Array, " batch"] | None = None
    ) -> Float[Array, "batch tokens width"]:
        """Apply the block; see `Encoder.__call__`."""
        y = LayerNorm(self.epsilon, self.dtype, name="norm1")(x)
        x = x + Attention(
            self.heads,
            implementation=self.attention,
            qkv_init=self.qkv_init,
            output_init=self.output_init,
            dtype=self.dtype,
            name="attention",
        )(y, lengths)
        y = LayerNorm(self.epsilon, self.dtype, name="norm2")(x)
        mlp = MLP(self.mlp_dim, self.hidden_init, self.output_init, self.dtype, name="mlp")
        return x + mlp(y)


class Encoder(nn.Module):
    """`depth` blocks under one `nn.scan`: compiled once, parameters stacked on a leading axis.

    Attributes:
        depth: number of blocks.
        heads: number of attention heads.
        mlp_dim: hidden width of the MLPs.
        remat: keep only the input of each block for the backward pass and recompute the rest:
            the memory of one block instead of `depth`, for about a third more time.
        unroll: blocks per iteration of the compiled loop; `depth` leaves no loop. None chooses one
            block, except on CPU without `remat`, where no loop is faster. It changes neither the
            parameters nor the result.
        attention: see `attend`.
        epsilon: of the layer norms.
        qkv_init: initialiser of the projections to queries, keys and values.
        hidden_init: initialiser of the first layer of the MLPs.
        output_init: initialiser of the layers that write to the residual stream.
        dtype: of the computation; parameters are float32.
    """

    depth: int
    heads: int
    mlp_dim: int
    remat: bool = False
    unroll: int | None = None
    attention: Implementation = "auto"
    epsilon: float = 1e-6
    qkv_init: Initializer = XAVIER_QKV
    hidden_init: Initializer = XAVIER
    output_init: Initializer = XAVIER
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch tokens width"], lengths: Int[Array, " batch"] | None = None
    ) -> Float[Array, "batch tokens width"]:
        """Apply the blocks.

        Args:
            x: the tokens.
            lengths: for each row, the number of leading tokens that are not padding; None for all.

        Returns:
            The encoded tokens, in `dtype`.

        Raises:
            ValueError: `depth` is below 1, or the width is not a multiple of `heads`.
        """
        if self.depth < 1:
            raise ValueError(f"an encoder needs a depth of at least 1, not {self.depth}")
        unroll = self.unroll
        if unroll is None:
            unroll = self.depth if jax.default_backend() == "cpu" and not self.remat else 1
        # XLA cannot merge the recomputation with the forward pass across a loop: no barrier needed.
        block = nn.remat(Block, prevent_cse=unroll > 1) if self.remat else Block
        layers = nn.scan(
            lambda layer, carry, lengths: (layer(carry, lengths), None),
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=nn.broadcast,
            length=self.depth,
            unroll=unroll,
        )
        blocks = block(
            self.heads,
            self.mlp_dim,
            self.attention,
            self.epsilon,
            self.qkv_init,
            self.hidden_init,
            self.output_init,
            self.dtype,
            name="blocks",
        )
        x, _ = layers(blocks, x.astype(self.dtype), lengths)
        return x
