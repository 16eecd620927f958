"""Transformer layers shared by the image and text encoders, and their initialisers.

Parameters are float32 and are cast to `dtype` (bfloat16 on accelerators) where they are used;
layer norms, softmax and GELU are computed in float32 whatever `dtype` is.

Parameter names are PyTorch-like (`norm1`, `attention/qkv`, `mlp/fc1`, ...) so that published
weights map onto them by name; the blocks of an `Encoder` are stacked on a leading axis of
length `depth`.
"""

import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

Array = jax.Array
DType = Any
Initializer = Callable[..., Array]
Implementation = Literal["auto", "einsum", "xla", "cudnn"]

XAVIER: Initializer = nn.initializers.xavier_uniform()
# Xavier's for each of queries, keys and values, which are square, not for the three as one matrix.
XAVIER_QKV: Initializer = nn.initializers.variance_scaling(1.0, "fan_in", "uniform")

# The default of torch.nn.Linear and Conv2d: uniform in +-1/sqrt(fan_in).
TORCH_LINEAR: Initializer = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def uniform(bound: float) -> Initializer:
    """An initialiser that draws from the uniform distribution on [-bound, bound]."""

    def init(key: Array, shape: tuple[int, ...], dtype: DType = jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


# What a function under this computes is computed again for the gradient, from its inputs alone,
# instead of being kept: without it a step of ViT-S/16 in bfloat16 keeps the float32 values within
# every GELU and norm. Inside a loop over blocks nothing can undo it: it needs no barrier.
_recomputed = functools.partial(jax.checkpoint, prevent_cse=False)


@_recomputed
def gelu(x: Array) -> Array:
    """The exact (erf) GELU, computed in float32; the dtype of `x` is kept.

    `jax.nn.gelu` rounds sqrt(1/2) to bfloat16 and uses erfc, which is slower on CPU.
    """
    y = x.astype(jnp.float32)
    return (0.5 * y * (1 + jax.lax.erf(y * np.float32(0.5**0.5)))).astype(x.dtype)


def dense(features: int, **options: Any) -> nn.Dense:
    """`nn.Dense` as a product of two matrices, whatever the axes of its input.

    Of a product with more axes XLA transposes the kernel's gradient and back, by copies on a CPU: a
    step of a small ViT takes a quarter longer.
    """

    def dot_general(x: Array, kernel: Array, *_: Any, **__: Any) -> Array:
        rows = x.reshape(-1, x.shape[-1]) @ kernel  # what Dense asks for besides is always this
        return rows.reshape(*x.shape[:-1], kernel.shape[-1])

    return nn.Dense(features, dot_general=dot_general, **options)


class LayerNorm(nn.Module):
    """Layer normalisation over the last axis; statistics in float32, output in `dtype`.

    Flax's own mixes bfloat16 inputs with float32 statistics, which strict promotion forbids.
    `epsilon` is timm's 1e-6 (PyTorch's default is 1e-5).
    """

    epsilon: float = 1e-6
    dtype: DType = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        ones, zeros = nn.initializers.ones, nn.initializers.zeros
        shape = (1,) * (x.ndim - 1) + (-1,)
        scale = self.param("scale", ones, (x.shape[-1],), jnp.float32).reshape(shape)
        bias = self.param("bias", zeros, (x.shape[-1],), jnp.float32).reshape(shape)

        @_recomputed
        def normalise(x: Array, scale: Array, bias: Array) -> Array:
            x = x.astype(jnp.float32)
            centred = x - jnp.mean(x, axis=-1, keepdims=True)
            variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
            y = centred * jax.lax.rsqrt(variance + self.epsilon) * scale + bias
            return y.astype(self.dtype)

        return normalise(x, scale, bias)


def _cudnn_serves(dtype: DType, head_width: int) -> bool:
    """Whether cuDNN's flash attention takes this dtype and head width on this machine."""
    if jnp.dtype(dtype) not in (jnp.bfloat16, jnp.float16):
        return False
    if head_width % 8 or head_width > 128 or jax.default_backend() != "gpu":
        return False
    device = jax.local_devices(backend="gpu")[0]
    if "cuda" not in device.client.platform_version:  # AMD
        return False
    return float(device.compute_capability) >= 8.0


def resolve_attention(
    implementation: Implementation, dtype: DType, head_width: int
) -> Literal["einsum", "xla", "cudnn"]:
    """What "auto" means here: "cudnn" where it can serve, "einsum" on CPU, "xla" elsewhere.

    Raises:
      ValueError: `implementation` is none of "auto", "einsum", "xla", "cudnn".
    """
    if implementation not in ("auto", "einsum", "xla", "cudnn"):
        raise ValueError(
            f'attention must be "auto", "einsum", "xla" or "cudnn", not {implementation!r}'
        )
    if implementation != "auto":
        return implementation
    if _cudnn_serves(dtype, head_width):
        return "cudnn"
    return "einsum" if jax.default_backend() == "cpu" else "xla"


def attend(
    query: Array,
    key: Array,
    value: Array,
    *,
    lengths: Array | None = None,
    implementation: Implementation = "auto",
    dropout: Callable[[Array], Array] | None = None,
) -> Array:
    """Softmax attention, `softmax(q k^T / sqrt(d)) v`, softmax in float32.

    Args:
      query: (b, t, heads, d).
      key, value: (b, s, heads, d).
      lengths: int32 (b,), the number of leading keys that are real; None for all of them.
      implementation: "cudnn" and "xla" are those of `jax.nn.dot_product_attention`; "einsum" is
        the same mathematics with the heads moved to the batch first, which XLA runs faster on
        CPU; "auto" chooses. JAX refuses "cudnn" an odd t or s where a gradient is taken.
      dropout: applied to the attention weights (b, heads, t, s); only "einsum" can.

    Returns:
      (b, t, heads, d), the dtype of `query`.
    """
    chosen = resolve_attention(implementation, query.dtype, query.shape[-1])
    if lengths is not None:  # a row without keys would be 0/0: let it see its first one
        lengths = jnp.maximum(lengths.astype(jnp.int32), jnp.int32(1))
    if dropout is None and chosen == "xla":
        run = _recomputed(functools.partial(jax.nn.dot_product_attention, implementation="xla"))
        return run(query, key, value, key_value_seq_lengths=lengths)
    if dropout is None and chosen == "cudnn":  # which keeps no weights for the gradient
        return jax.nn.dot_product_attention(
            query,
            key,
            value,
            query_seq_lengths=None if lengths is None else _each(query, query.shape[1]),
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
    return jnp.einsum("bhts,bshd->bthd", weights, value)  # (b, h, t, s) . (b, s, h, d)


def _each(x: Array, number: int) -> Array:
    """`number` for each row of x, int32 (b,).

    cuDNN's call needs it cut over the devices like x, and with the axis of a `vmap` around. A
    constant has neither, nor has what XLA sees to be one: so it is computed from x.
    """
    return jnp.maximum((x.reshape(x.shape[0], -1)[:, 0] > 0).astype(jnp.int32), jnp.int32(number))


class Attention(nn.Module):
    """Multi-head self-attention with one fused projection to queries, keys and values.

    The output features of `qkv` are ordered (3, heads, head width), as timm's.

    Raises:
      ValueError: the width of the input is not a multiple of `heads`.
    """

    heads: int
    dropout: float = 0.0
    implementation: Implementation = "auto"
    qkv_init: Initializer = XAVIER_QKV
    output_init: Initializer = XAVIER
    dtype: DType = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Array,
        lengths: Array | None = None,
        *,
        queries: int | None = None,
        train: bool = False,
    ) -> Array:
        """(b, n, width) -> (b, n, width); only the first `queries` tokens, where given, ask."""
        b, n, width = x.shape
        if width % self.heads:
            raise ValueError(f"width {width} is not a multiple of heads {self.heads}")
        head_width = width // self.heads
        dropout = None
        if train and self.dropout:
            dropout = nn.Dropout(self.dropout, deterministic=False)
        asking = n if queries is None else queries
        even = asking
        if dropout is None:
            chosen = resolve_attention(self.implementation, self.dtype, head_width)
            if chosen == "cudnn" and (n % 2 or asking % 2):
                # JAX refuses cuDNN an odd number of tokens in training: one more, which none sees.
                # Here and not in `attend`, where it would have to be copied.
                x = jnp.pad(x, ((0, 0), (0, n % 2), (0, 0)))
                lengths = _each(x, n) if lengths is None else lengths
                even += asking % 2
        qkv = dense(3 * width, kernel_init=self.qkv_init, dtype=self.dtype, name="qkv")(x)
        qkv = qkv.reshape(b, -1, 3, self.heads, head_width)
        y = attend(
            qkv[:, :even, 0],
            qkv[:, :, 1],
            qkv[:, :, 2],
            lengths=lengths,
            implementation=self.implementation,
            dropout=dropout,
        )
        y = y.reshape(b, even, width)
        y = dense(width, kernel_init=self.output_init, dtype=self.dtype, name="out")(y)
        return y[:, :asking]


class MLP(nn.Module):
    """Linear, GELU, linear: (..., width) -> (..., width)."""

    hidden: int
    hidden_init: Initializer = XAVIER
    output_init: Initializer = XAVIER
    dtype: DType = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        width = x.shape[-1]
        y = dense(self.hidden, kernel_init=self.hidden_init, dtype=self.dtype, name="fc1")(x)
        return dense(width, kernel_init=self.output_init, dtype=self.dtype, name="fc2")(gelu(y))


class Block(nn.Module):
    """A pre-norm Transformer block: `x + attention(norm1(x))`, then `x + mlp(norm2(x))`."""

    heads: int
    mlp_dim: int
    attention: Implementation = "auto"
    epsilon: float = 1e-6
    qkv_init: Initializer = XAVIER_QKV
    hidden_init: Initializer = XAVIER
    output_init: Initializer = XAVIER
    dtype: DType = jnp.float32

    @nn.compact
    def __call__(self, x: Array, lengths: Array | None = None) -> Array:
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
      remat: keep only the input of each block for the backward pass and recompute the rest:
        the memory of one block instead of `depth`, for about a third more time.
      unroll: blocks per iteration of the compiled loop; `depth` leaves no loop. None chooses: one
        block, except that on CPU without `remat` there is no loop, which runs faster there. It
        changes neither the parameters nor the result.
      attention: see `attend`.

    Raises:
      ValueError: `depth` is below one.
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
    dtype: DType = jnp.float32

    @nn.compact
    def __call__(self, x: Array, lengths: Array | None = None) -> Array:
        """(b, n, width) -> (b, n, width); only the first `lengths` (b,) tokens are attended to."""
        if self.depth < 1:
            raise ValueError(f"an encoder needs a depth of at least 1, not {self.depth}")
        unroll = self.unroll
        if unroll is None:
            unroll = self.depth if jax.default_backend() == "cpu" and not self.remat else 1
        # Inside a loop nothing can undo the recomputation: it needs no barrier.
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
