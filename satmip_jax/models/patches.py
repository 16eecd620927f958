"""Patch embedding: images -> one token per patch, by a linear layer."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from satmip_jax.models.layers import TORCH_LINEAR, linear


class PatchEmbedding(nn.Module):
    """A linear layer over the pixels of each patch, (y, x, channel), patches row by row.

    Attributes:
        width: of the tokens.
        patch_size: side of a patch, pixels.
        by_convolution: compute it as a strided convolution, which spares a TPU the copy that
            brings the pixels of a patch together. Elsewhere the copy is faster.
        dtype: of the computation; parameters are float32.
    """

    width: int
    patch_size: int
    by_convolution: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width 3"]
    ) -> Float[Array, "batch patches {self.width}"]:
        """Embed images whose sides are multiples of the patch size."""
        batch, height, width, channels = images.shape
        p = self.patch_size
        pixels = p * p * channels
        kernel = self.param("kernel", TORCH_LINEAR, (pixels, self.width), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (self.width,), jnp.float32)
        x = images.astype(self.dtype)
        if self.by_convolution:
            x = convolve_patches(x, kernel.reshape(p, p, channels, self.width))
            x = x.reshape(-1, self.width).astype(jnp.float32) + bias[None]
            return x.astype(self.dtype).reshape(batch, -1, self.width)
        x = x.reshape(batch, height // p, p, width // p, p, channels)
        # (b, y, p, x, p, 3) -> (b, y, x, p, p, 3) -> (b * y * x, p * p * 3)
        (rows,) = linear(x.transpose(0, 1, 3, 2, 4, 5).reshape(-1, pixels), kernel, bias)
        return rows.reshape(batch, -1, self.width)


@jax.custom_vjp
def convolve_patches(
    x: Float[Array, "batch height width channels"],
    kernel: Float[Array, "patch patch channels outputs"],
) -> Float[Array, "batch rows columns outputs"]:
    """Return the product of every patch with the kernel, in the dtype of `x`.

    The gradient of the kernel is summed in float32.

    Args:
        x: float32 or bfloat16.
        kernel: float32.
    """
    return _convolve(x, kernel)


def _convolve(x: Array, kernel: Array) -> Array:
    axes = ("NHWC", "HWIO", "NHWC")
    stride = kernel.shape[:2]
    y: Array = jax.lax.conv_general_dilated(
        x, kernel.astype(x.dtype), stride, "VALID", dimension_numbers=axes
    )
    return y


def _forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return _convolve(x, kernel), (x, kernel)


def _backward(saved: tuple[Array, Array], grad: Array) -> tuple[Array, Array]:
    x, kernel = saved
    _, by_x = jax.vjp(functools.partial(_convolve, kernel=kernel), x)
    # The sum over images and patches is a convolution of x with the dilated gradient.
    by_kernel = jax.lax.conv_general_dilated(
        x,
        grad,
        (1, 1),
        "VALID",
        rhs_dilation=kernel.shape[:2],
        dimension_numbers=("CHWN", "IHWO", "HWNC"),
        preferred_element_type=jnp.float32,
    )
    return by_x(grad)[0], by_kernel


convolve_patches.defvjp(_forward, _backward)
