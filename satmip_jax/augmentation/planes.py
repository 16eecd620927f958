"""Images as three colour planes.

Products of matrices with planes need no transposes, and the compiler fuses what is done to a pixel.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Float32

Plane = Float[Array, "batch height width"]
Planes = tuple[Plane, Plane, Plane]
"""Red, green and blue, in [0, 1], float32 or float16; computed with in float32."""

Output = Float[Array, "batch out_height out_width"]

# TF32 on a GPU, three bf16 passes on a TPU: finer than the 8 bits of a pixel, unlike one bf16 pass.
PRECISION = lax.Precision.HIGH


def map_planes(function: Callable[..., Array], *planes: Planes) -> Planes:
    """Apply a function to the red planes, to the green ones and to the blue ones."""
    red, green, blue = (function(*channel) for channel in zip(*planes, strict=True))
    return red, green, blue


def to_float32(planes: Planes) -> Planes:
    """Return the planes in float32, to compute with."""
    return map_planes(lambda x: x.astype(jnp.float32), planes)


def multiply_axes(
    rows: Float32[Array, "batch out_height height"],
    planes: Planes,
    columns: Float32[Array, "batch out_width width"],
) -> tuple[Output, Output, Output]:
    """Return `rows @ plane @ columns.T` for each plane of each image.

    Args:
        rows: for each image, the weights of the input rows in each output row.
        planes: the images.
        columns: for each image, the weights of the input columns in each output column.

    Returns:
        Planes of shape (batch, out_height, out_width), of the dtype of `planes`.
    """
    rows, columns = rows.astype(planes[0].dtype), columns.astype(planes[0].dtype)

    def one(plane: Array) -> Array:
        # (b, h, w) . (b, p, w) -> (b, h, p), then (b, o, h) . (b, h, p) -> (b, o, p)
        plane = jnp.einsum("bhw,bpw->bhp", plane, columns, precision=PRECISION)
        return jnp.einsum("boh,bhp->bop", rows, plane, precision=PRECISION)

    red, green, blue = (one(plane) for plane in planes)
    return red, green, blue
