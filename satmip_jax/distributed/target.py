"""Devices that a program is compiled for, present or not."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.typing import DTypeLike


@dataclass(frozen=True)
class Target:
    """A kind of device. Layers choose their implementation by it, not by JAX's default backend.

    Attributes:
        platform: "cpu", "gpu" or "tpu".
        has_cudnn_attention: whether cuDNN's flash attention runs on it.
        mesh: over which batches are sharded, for kernels that XLA cannot shard; None if that is
            not known.
        gradient_dtype: in which gradients of linear layers are summed over devices.

    Example:
        >>> from satmip_jax.distributed.target import Target
        >>> Target("gpu", has_cudnn_attention=True).view_dtype(jnp.bfloat16)
        dtype('float16')
    """

    platform: str
    has_cudnn_attention: bool = False
    mesh: Mesh | None = None
    gradient_dtype: str = "float32"

    @classmethod
    def of(cls, mesh: Mesh | None = None, gradient_dtype: str = "float32") -> Target:
        """Return the target of a mesh, whose devices may be those of a topology that is not here.

        Args:
            mesh: over which batches are sharded; None for JAX's default device.
            gradient_dtype: see the attribute.
        """
        device: Any = jax.local_devices()[0] if mesh is None else mesh.devices.flat[0]
        # "9.0" of NVIDIA, "gfx942" of AMD
        capability = str(getattr(device, "compute_capability", None))
        is_nvidia = device.platform == "gpu" and re.fullmatch(r"\d+\.\d+", capability)
        has_cudnn_attention = bool(is_nvidia) and float(capability) >= 8.0
        return cls(device.platform, has_cudnn_attention, mesh, gradient_dtype)

    def view_dtype(self, dtype: DTypeLike) -> jnp.dtype:
        """Return the dtype to keep views in, given that of the encoders.

        float16 resolves a pixel's 256 values eight times; it halves the memory traffic of views on
        a GPU. bfloat16, to which the encoder rounds them, resolves them once.
        """
        halved = self.platform == "gpu" and jnp.dtype(dtype) == jnp.bfloat16
        return jnp.dtype(jnp.float16 if halved else jnp.float32)
