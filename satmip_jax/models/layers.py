"""Transformer layers shared by the image and text encoders, and their initializers.

Parameters are float32 and are cast to `dtype` (bfloat16 on accelerators) where they are used.
Layer norms, softmax and GELU are computed in float32 whatever `dtype` is.

Parameter names are PyTorch-like (`norm1`, `attention/qkv`, `mlp/fc1`, ...) so that published
weights map onto them by name. The blocks of an `Encoder` are stacked on a leading axis of length
`depth`.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PRNGKeyArray

Initializer = Callable[..., Array]

XAVIER: Initializer = nn.initializers.xavier_uniform()
# Xavier's scale for queries, keys and values as three square matrices, not as one wide matrix.
XAVIER_QKV: Initializer = nn.initializers.variance_scaling(1.0, "fan_in", "uniform")

# The default of torch.nn.Linear and Conv2d: uniform in +-1/sqrt(fan_in).
TORCH_LINEAR: Initializer = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def uniform(bound: float) -> Initializer:
    """Return an initializer that draws from the uniform distribution on [-bound, bound)."""

    def init(key: PRNGKeyArray, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


# Recomputes a function from its inputs in the backward pass instead of keeping its intermediates.
# Without it a step of ViT-S/16 in bfloat16 keeps the float32 values within every GELU and norm.
# XLA cannot merge the two computations across the loop over blocks, so no barrier is needed.
recomputed = functools.partial(jax.checkpoint, prevent_cse=False)


@recomputed
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
    """Layer normalization over the last axis; statistics in float32, output in `dtype`.

    Flax's LayerNorm mixes bfloat16 inputs with float32 statistics, which strict promotion forbids.

    Attributes:
        epsilon: added to the variance; timm uses 1e-6, PyTorch's default is 1e-5.
        dtype: of the output.
    """

    epsilon: float = 1e-6
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*batch width"]) -> Float[Array, "*batch width"]:
        """Normalize each row of `x`."""
        ones, zeros = nn.initializers.ones, nn.initializers.zeros
        shape = (1,) * (x.ndim - 1) + (-1,)
        scale = self.param("scale", ones, (x.shape[-1],), jnp.float32).reshape(shape)
        bias = self.param("bias", zeros, (x.shape[-1],), jnp.float32).reshape(shape)

        @recomputed
        def normalize(x: Array, scale: Array, bias: Array) -> Array:
            x = x.astype(jnp.float32)
            centred = x - jnp.mean(x, axis=-1, keepdims=True)
            variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
            y = centred * jax.lax.rsqrt(variance + self.epsilon) * scale + bias
            return y.astype(self.dtype)

        return normalize(x, scale, bias)


class MLP(nn.Module):
    """Linear layer, GELU, linear layer.

    Attributes:
        hidden: width between the layers.
        hidden_init: initializer of the first layer.
        output_init: initializer of the second layer.
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
