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
from jaxtyping import Array, Bool, Float, Float32, Key, PRNGKeyArray

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


def fold_in(keys: Key[Array, " batch"], number: int) -> Key[Array, " batch"]:
    """Return another key for each of `keys`."""
    return jax.vmap(jax.random.fold_in, (0, None))(keys, number)


def draw_kept(
    keys: Key[Array, " batch"], rate: float, shape: tuple[int, ...]
) -> Bool[Array, "batch ..."]:
    """Draw for each key which elements of an array of a shape dropout keeps, 1 - rate of them."""
    return jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate, shape))(keys)


def drop(
    x: Float[Array, "batch ..."], keys: Key[Array, " batch"], rate: float
) -> Float[Array, "batch ..."]:
    """Apply dropout: zero elements at random, and scale the others by 1 / (1 - rate).

    Each row draws from its own key. flax's dropout draws from one: it would have to be mapped over
    the rows together with the layers around it, which then compute a gradient for each row.

    Args:
        x: one row per example.
        keys: one key per row.
        rate: probability that an element is zeroed.
    """
    return jnp.where(draw_kept(keys, rate, x.shape[1:]), x / (1 - rate), jnp.zeros_like(x))


# Recomputes a function from its inputs in the backward pass instead of keeping its intermediates:
# the float32 values within a GELU would take twice the memory of its bfloat16 input.
recomputed = functools.partial(jax.checkpoint, prevent_cse=False)


@recomputed
def gelu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return the exact (erf) GELU, computed in float32 and returned in the dtype of `x`.

    `jax.nn.gelu` rounds sqrt(1/2) to bfloat16 and uses erfc, which is slower on CPU.
    """
    y = x.astype(jnp.float32)
    return (0.5 * y * (1 + jax.lax.erf(y * np.float32(0.5**0.5)))).astype(x.dtype)


@recomputed
def quick_gelu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return OpenAI CLIP's approximation of the GELU, x sigmoid(1.702 x), computed in float32."""
    y = x.astype(jnp.float32)
    return (y * jax.nn.sigmoid(1.702 * y)).astype(x.dtype)


ACTIVATIONS = {"gelu": gelu, "quick_gelu": quick_gelu}


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def linear(
    x: Float[Array, "rows inputs"],
    kernel: Float[Array, "inputs outputs"],
    bias: Float[Array, " outputs"] | None,
    parts: int = 1,
    gradient_dtype: DTypeLike = jnp.float32,
) -> tuple[Float[Array, "rows _"], ...]:
    """Return `x @ kernel + bias`, cut into `parts` of equal width, in the dtype of `x`.

    Gradients of the parameters are summed over the rows in float32 and never rounded to bfloat16:
    on several devices XLA sums them in float32, too, while it would sum in bfloat16 what it casts
    afterwards.

    Args:
        x: float32 or bfloat16.
        kernel: float32; it is cast to the dtype of `x`.
        bias: float32, or None.
        parts: number of arrays to return, such as 3 for queries, keys and values. One product per
            part saves a copy of each; the backward pass is one product for all.
        gradient_dtype: of the gradient of the kernel before it is summed over devices.
    """
    del gradient_dtype
    products = tuple(x @ part for part in jnp.split(kernel.astype(x.dtype), parts, axis=1))
    if bias is None:
        return products
    offsets = jnp.split(bias.astype(x.dtype)[None], parts, axis=1)
    return tuple(map(jnp.add, products, offsets))


def _linear_forward(
    x: Array, kernel: Array, bias: Array | None, parts: int, gradient_dtype: DTypeLike
) -> Any:
    return linear(x, kernel, bias, parts, gradient_dtype), (x, kernel, bias is not None)


def _linear_backward(
    parts: int,
    gradient_dtype: DTypeLike,
    saved: tuple[Array, Array, bool],
    grads: tuple[Array, ...],
) -> Any:
    x, kernel, has_bias = saved
    width = kernel.shape[1] // parts
    # A sum of padded parts is fused into what reads it; a concatenation would be written first.
    padding = [((0, 0), (i * width, (parts - 1 - i) * width)) for i in range(parts)]
    grad = functools.reduce(jnp.add, map(jnp.pad, grads, padding))
    by_rows = (((0,), (0,)), ((), ()))
    by_kernel = jax.lax.dot_general(x, grad, by_rows, preferred_element_type=gradient_dtype)
    return (
        grad @ kernel.astype(x.dtype).T,
        by_kernel.astype(jnp.float32),
        _sum_rows(grad) if has_bias else None,
    )


def _sum_rows(x: Array) -> Array:
    """Return the sum of the rows in float32. On a TPU the matrix unit is the faster one."""

    def by_product(x: Array) -> Array:
        ones = jnp.ones((8, len(x)), x.dtype)
        total: Array = jnp.matmul(ones, x, preferred_element_type=jnp.float32)
        return total[0]

    def by_sum(x: Array) -> Array:
        return jnp.sum(x, axis=0, dtype=jnp.float32)

    total: Array = jax.lax.platform_dependent(x, tpu=by_product, default=by_sum)
    return total


linear.defvjp(_linear_forward, _linear_backward)


class Dense(nn.Module):
    """A linear layer over the last axis, see `linear`. Parameters are those of `nn.Dense`.

    Attributes:
        features: width of the output.
        use_bias: whether to add a bias.
        kernel_init: initializer of the kernel (inputs, outputs).
        bias_init: initializer of the bias.
        parts: number of arrays to return.
        gradient_dtype: of the gradient of the kernel before it is summed over devices.
        dtype: of the computation; parameters are float32.
    """

    features: int
    use_bias: bool = True
    kernel_init: Initializer = XAVIER
    bias_init: Initializer = nn.initializers.zeros
    parts: int = 1
    gradient_dtype: DTypeLike = jnp.float32
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*batch width"]) -> Any:
        """Return the output, or a tuple of them if there are several `parts`."""
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features), jnp.float32)
        # One product of two matrices: for more axes XLA transposes the gradient of the kernel.
        rows = x.astype(self.dtype).reshape(-1, x.shape[-1])
        bias = None
        if self.use_bias:
            bias = self.param("bias", self.bias_init, (self.features,), jnp.float32)
        outputs = linear(rows, kernel, bias, self.parts, self.gradient_dtype)
        outputs = tuple(y.reshape(*x.shape[:-1], y.shape[-1]) for y in outputs)
        return outputs if self.parts > 1 else outputs[0]


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def layer_norm(
    x: Float[Array, "*batch width"],
    scale: Float32[Array, " width"],
    bias: Float32[Array, " width"],
    epsilon: float,
    dtype: DTypeLike,
) -> Float[Array, "*batch width"]:
    """Normalize rows to mean 0 and variance 1, then scale and shift, in float32.

    The backward pass keeps `x` and two numbers per row.

    Args:
        x: float32 or bfloat16.
        scale: of each column.
        bias: of each column.
        epsilon: added to the variance.
        dtype: of the output.
    """
    return _layer_norm_forward(x, scale, bias, epsilon, dtype)[0]


def _layer_norm_forward(
    x: Array, scale: Array, bias: Array, epsilon: float, dtype: DTypeLike
) -> tuple[Array, tuple[Array, Array, Array, Array]]:
    # Both sums in one pass over x. Shifted by a value of the row, they do not cancel however far
    # the mean is from zero (Chan, Golub, LeVeque 1983).
    shift = x[..., :1].astype(jnp.float32)
    shifted = x.astype(jnp.float32) - shift
    mean = jnp.mean(shifted, axis=-1, keepdims=True)
    square = jnp.mean(jnp.square(shifted), axis=-1, keepdims=True)
    inverse = jax.lax.rsqrt(jnp.maximum(square - jnp.square(mean), 0) + epsilon)
    mean = mean + shift
    y = (x.astype(jnp.float32) - mean) * inverse * _row(scale, x) + _row(bias, x)
    return y.astype(dtype), (x, mean, inverse, scale)


def _layer_norm_backward(
    epsilon: float, dtype: DTypeLike, saved: tuple[Array, Array, Array, Array], grad: Array
) -> tuple[Array, Array, Array]:
    def normalized(x: Array, mean: Array, inverse: Array) -> Array:
        return (x.astype(jnp.float32) - mean) * inverse

    x, mean, inverse, scale = saved
    y = normalized(x, mean, inverse)
    by_y = grad.astype(jnp.float32) * _row(scale, x)
    by_x = by_y - jnp.mean(by_y, axis=-1, keepdims=True)
    by_x = (by_x - y * jnp.mean(by_y * y, axis=-1, keepdims=True)) * inverse
    # Without a barrier, XLA for GPUs writes a float32 product of both sums to memory and reads it.
    x, grad, mean, inverse = jax.lax.platform_dependent(
        x, grad, mean, inverse, cuda=lambda *xs: jax.lax.optimization_barrier(xs), default=_same
    )
    grad, rows = grad.astype(jnp.float32), tuple(range(x.ndim - 1))
    by_scale = jnp.sum(grad * normalized(x, mean, inverse), axis=rows)
    return by_x.astype(x.dtype), by_scale, jnp.sum(grad, axis=rows)


def _same(*arrays: Array) -> tuple[Array, ...]:
    return arrays


def _row(vector: Array, like: Array) -> Array:
    return vector.reshape((1,) * (like.ndim - 1) + (-1,))


layer_norm.defvjp(_layer_norm_forward, _layer_norm_backward)


class LayerNorm(nn.Module):
    """Layer normalization over the last axis; statistics in float32, output in `dtype`.

    Attributes:
        epsilon: added to the variance; timm uses 1e-6, PyTorch's default is 1e-5.
        dtype: of the output.
    """

    epsilon: float = 1e-6
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*batch width"]) -> Float[Array, "*batch width"]:
        """Normalize each row of `x`."""
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],), jnp.float32)
        return layer_norm(x, scale, bias, self.epsilon, self.dtype)


class MLP(nn.Module):
    """Linear layer, activation, linear layer.

    Attributes:
        hidden: width between the layers.
        hidden_init: initializer of the first layer.
        output_init: initializer of the second layer.
        activation: a key of `ACTIVATIONS`.
        gradient_dtype: see `Dense`.
        dtype: of the computation; parameters are float32.
    """

    hidden: int
    hidden_init: Initializer = XAVIER
    output_init: Initializer = XAVIER
    activation: str = "gelu"
    gradient_dtype: DTypeLike = jnp.float32
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*batch width"]) -> Float[Array, "*batch width"]:
        """Apply the layers to the last axis."""
        layer = functools.partial(Dense, gradient_dtype=self.gradient_dtype, dtype=self.dtype)
        y = layer(self.hidden, kernel_init=self.hidden_init, name="fc1")(x)
        y = ACTIVATIONS[self.activation](y)
        return layer(x.shape[-1], kernel_init=self.output_init, name="fc2")(y)
