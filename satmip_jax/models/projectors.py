"""Projectors from a representation to the space where a loss compares; dropped after training.

Sources: Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations",
ICML 2020; Mu et al., "SLIP", ECCV 2022; Radford et al. (CLIP), ICML 2021.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32

from satmip_jax.models.layers import TORCH_LINEAR, Dense, gelu


class BatchNorm(nn.Module):
    """Batch normalization by the statistics of the current batch, in float32; no state.

    There is no running average, because projectors are not used after training. Under `jit` the
    batch is the global one however it is sharded: this is PyTorch's SyncBatchNorm in training mode.

    Attributes:
        epsilon: added to the variance.
        dtype: of the output; statistics and parameters are float32.
    """

    epsilon: float = 1e-5
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "batch width"]) -> Float[Array, "batch width"]:
        """Normalize each column of `x`.

        Raises:
            ValueError: the batch has one row, whose variance is zero.
        """
        if x.shape[0] < 2 and not self.is_initializing():
            raise ValueError(f"batch normalization needs at least two examples, not {x.shape[0]}")
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],), jnp.float32)
        x = x.astype(jnp.float32)
        centred = x - jnp.mean(x, axis=0, keepdims=True)
        variance = jnp.mean(jnp.square(centred), axis=0, keepdims=True)
        normalized = centred * jax.lax.rsqrt(variance + self.epsilon)
        return (normalized * scale[None] + bias[None]).astype(self.dtype)


class MLPProjector(nn.Module):
    """Linear layers with batch norm and ReLU between them.

    The defaults are SLIP's, which are SimCLR's with a third layer: `MLPProjector(4096, 256)`. The
    linear layers before a batch norm have no bias, which the norm would subtract again.

    The statistics are those of all rows of a call: in `Forward.head` of both views together, and
    in SLIP of each view by itself.

    Attributes:
        hidden: width of the layers before the last.
        out: width of the output.
        layers: number of linear layers; one is an affine map.
        dtype: of the computation; parameters are float32.

    Example:
        >>> from satmip_jax.models.projectors import MLPProjector
        >>> model, x = MLPProjector(hidden=64, out=16), jnp.ones((8, 32))
        >>> model.apply(model.init(jax.random.key(0), x), x).shape
        (8, 16)
    """

    hidden: int
    out: int
    layers: int = 3
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "batch width"]) -> Float32[Array, "batch {self.out}"]:
        """Project each row of `x`.

        Raises:
            ValueError: fewer than one layer, or a batch of one row before a batch norm.
        """
        if self.layers < 1:
            raise ValueError(f"a projector needs at least one layer, not {self.layers}")
        for i in range(1, self.layers):
            x = Dense(
                self.hidden,
                use_bias=False,
                kernel_init=TORCH_LINEAR,
                dtype=self.dtype,
                name=f"linear{i}",
            )(x)
            x = nn.relu(BatchNorm(dtype=self.dtype, name=f"norm{i}")(x))
        x = Dense(
            self.out, kernel_init=TORCH_LINEAR, dtype=self.dtype, name=f"linear{self.layers}"
        )(x)
        return x.astype(jnp.float32)


class Predictor(nn.Module):
    """Three linear layers with GELU between them and no norm: each row by itself.

    Attributes:
        hidden: width of the layers before the last.
        out: width of the output.
        dtype: of the computation; parameters are float32.
    """

    hidden: int
    out: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "batch width"]) -> Float32[Array, "batch {self.out}"]:
        """Predict from each row of `x`."""
        for i, width in enumerate((self.hidden, self.hidden, self.out), 1):
            x = x if i == 1 else gelu(x)
            x = Dense(width, kernel_init=TORCH_LINEAR, dtype=self.dtype, name=f"linear{i}")(x)
        return x.astype(jnp.float32)


class LinearProjector(nn.Module):
    """CLIP's projection: one matrix without bias, drawn from normal(width^-0.5).

    Attributes:
        out: width of the output.
        dtype: of the computation; parameters are float32.
    """

    out: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "batch width"]) -> Float32[Array, "batch {self.out}"]:
        """Project each row of `x`."""
        normal = nn.initializers.variance_scaling(1.0, "fan_in", "normal")
        y = Dense(self.out, use_bias=False, kernel_init=normal, dtype=self.dtype, name="linear")(x)
        return y.astype(jnp.float32)
