"""Colour jitter and grey.

Brightness, contrast and saturation are one formula, `f x + (1 - f) target`, with three targets. So
every image has its own order of the operations, as in torchvision, without branches.

Source: torchvision `ColorJitter`.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float32, Int32, Key

from satmip_jax.augmentation.config import AugmentConfig
from satmip_jax.augmentation.draws import JITTER, uniform
from satmip_jax.augmentation.planes import Plane, Planes, map_planes, to_float32

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)  # the operations, in the order of `cfg.jitter`
GREY_WEIGHTS = (0.2989, 0.587, 0.114)  # torchvision's rounding of ITU-R 601-2


def draw_jitter(
    keys: Key[Array, " batch"], cfg: AugmentConfig
) -> tuple[Float32[Array, "batch 4"], Int32[Array, "batch operations"]]:
    """Draw strength and order of the operations for each image.

    Args:
        keys: one per image.
        cfg: the strengths; operations of strength 0 are left out.

    Returns:
        The factors of brightness, contrast and saturation and the turn of the hue (fractions of the
        colour circle); and the order of the operations in use.
    """
    operations = [i for i, strength in enumerate(cfg.jitter) if strength > 0]
    draws = uniform(keys, JITTER, 1 + 4 + len(operations))
    applied = (draws[:, 0] < cfg.jitter_p)[:, None]
    strength = jnp.array(cfg.jitter[:HUE], jnp.float32)[None]
    low = jnp.maximum(1 - strength, 0)
    factors = jnp.where(applied, low + (1 + strength - low) * draws[:, 1:4], 1)
    turns = jnp.where(applied, (2 * draws[:, 4:5] - 1) * cfg.jitter[HUE], 0)
    order = jnp.array(operations, jnp.int32)[jnp.argsort(draws[:, 5:], axis=1)]
    return jnp.concatenate([factors, turns], axis=1), order


def jitter(
    planes: Planes,
    factors: Float32[Array, "batch 4"],
    order: Int32[Array, "batch operations"],
    *,
    hue: bool,
) -> Planes:
    """Apply torchvision's ColorJitter, each image in its own order.

    Args:
        planes: the images.
        factors: see `draw_jitter`.
        order: see `draw_jitter`.
        hue: whether the hue is among the operations.
    """

    def step(planes: Planes, operation: Array) -> tuple[Planes, None]:
        factor = jnp.take_along_axis(factors, operation[:, None], axis=1)[:, :, None]
        operation = operation[:, None, None]
        dtype, planes = planes[0].dtype, to_float32(planes)
        grey_plane = grey(planes)
        mean = jnp.mean(grey_plane, axis=(1, 2), keepdims=True)
        target = jnp.where(operation == SATURATION, grey_plane, 0.0)
        target = jnp.where(operation == CONTRAST, mean, target)
        changed = map_planes(lambda x: (factor * x + (1 - factor) * target).clip(0, 1), planes)
        if hue:
            turned = turn_hue(planes, factor)
            changed = map_planes(
                lambda new, old: jnp.where(operation == HUE, new, old), turned, changed
            )
        return map_planes(lambda x: x.astype(dtype), changed), None

    # A loop: unrolled, the compiler fuses the steps and recomputes the first many times (ten times
    # slower on a CPU).
    return lax.scan(step, planes, order.T)[0]


def turn_hue(planes: Planes, turn: Float32[Array, "batch 1 1"]) -> Planes:
    """Turn the hue by a fraction of the colour circle, keeping HSV's saturation and value."""
    red, green, blue = planes
    value = jnp.maximum(jnp.maximum(red, green), blue)
    chroma = value - jnp.minimum(jnp.minimum(red, green), blue)
    scale = 1 / jnp.where(chroma > 0, chroma, 1)
    sixths = jnp.where(
        value == red,
        (green - blue) * scale,
        jnp.where(value == green, 2 + (blue - red) * scale, 4 + (red - green) * scale),
    )
    sixths = sixths + 6 * turn

    def channel(offset: float) -> Array:
        # distance round the circle of six: 0 where the channel is full, 3 where it is opposite
        position = sixths + offset
        position = position - 6 * jnp.floor(position / 6)
        return value - chroma * jnp.minimum(position, 4 - position).clip(0, 1)

    return channel(5.0), channel(3.0), channel(1.0)


def grey(planes: Planes) -> Plane:
    """Return the luma of each pixel, float32."""
    red, green, blue = to_float32(planes)
    return GREY_WEIGHTS[0] * red + GREY_WEIGHTS[1] * green + GREY_WEIGHTS[2] * blue
