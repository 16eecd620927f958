"""Projectors: a representation -> the space where a loss compares. Dropped after training.

Sources: Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations",
ICML 2020; Mu et al., "SLIP", ECCV 2022; Radford et al. (CLIP), ICML 2021.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from satmip_jax.models.layers import TORCH_LINEAR, Array, DType, LayerNorm, dense


class BatchNorm(nn.Module):
    """Batch normalisation by the statistics of the batch it is given, in float32; no state.

    No running average is kept, as projectors are not used after training. Under `jit` the batch
    is the global one however it is sharded: this is PyTorch's SyncBatchNorm in training mode.

    Raises:
      ValueError: a batch of one, whose variance is zero.
    """

    epsilon: float = 1e-5
    dtype: DType = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """(b, d) -> (b, d)."""
        if x.shape[0] < 2 and not self.is_initializing():
            raise ValueError(f"batch normalisation needs at least two examples, not {x.shape[0]}")
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],), jnp.float32)
        x = x.astype(jnp.float32)
        centred = x - jnp.mean(x, axis=0, keepdims=True)
        variance = jnp.mean(jnp.square(centred), axis=0, keepdims=True)
        normed = centred * jax.lax.rsqrt(variance + self.epsilon)
        return (normed * scale[None] + bias[None]).astype(self.dtype)


class MLPProjector(nn.Module):
    """`layers` linear layers with a norm and a ReLU between them: (b, d) -> float32 (b, out).

    The defaults are SLIP's, which are SimCLR's with a third layer: `MLPProjector(4096, 256)`.
    SLIP normalises each of the two views by its own batch: call the projector once per view.

    Attributes:
      hidden: width of the layers before the last.
      out: width of the output.
      norm: "batch" (global batch, see `BatchNorm`), "layer" or "none". The linear layers before
        a norm have no bias, which a batch norm would take out again.

    Raises:
      ValueError: an unknown norm, or fewer than one layer.
    """

    hidden: int
    out: int
    layers: int = 3
    norm: Literal["batch", "layer", "none"] = "batch"
    dtype: DType = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        if self.norm not in ("batch", "layer", "none"):
            raise ValueError(f'norm must be "batch", "layer" or "none", not {self.norm!r}')
        if self.layers < 1:
            raise ValueError(f"a projector needs at least one layer, not {self.layers}")
        for i in range(1, self.layers):
            x = dense(
                self.hidden,
                use_bias=self.norm == "none",
                kernel_init=TORCH_LINEAR,
                dtype=self.dtype,
                name=f"linear{i}",
            )(x)
            if self.norm == "batch":
                x = BatchNorm(dtype=self.dtype, name=f"norm{i}")(x)
            elif self.norm == "layer":
                x = LayerNorm(dtype=self.dtype, name=f"norm{i}")(x)
            x = nn.relu(x)
        x = dense(
            self.out, kernel_init=TORCH_LINEAR, dtype=self.dtype, name=f"linear{self.layers}"
        )(x)
        return x.astype(jnp.float32)


class LinearProjector(nn.Module):
    """CLIP's projection: one matrix, no bias, drawn from normal(d^-0.5); -> float32 (b, out)."""

    out: int
    dtype: DType = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        normal = nn.initializers.variance_scaling(1.0, "fan_in", "normal")
        y = dense(self.out, use_bias=False, kernel_init=normal, dtype=self.dtype, name="linear")(x)
        return y.astype(jnp.float32)
