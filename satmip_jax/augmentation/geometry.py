"""Crop, resize, quarter turns and flips.

A crop and its resize are two small dense matrices per image, one for each axis, so a view is two
batched matrix products. Flips and quarter turns only change the inputs of these products.

Sources: torchvision `RandomResizedCrop`; PIL's resize.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float32, Key, UInt8

from satmip_jax.augmentation.config import AugmentConfig
from satmip_jax.augmentation.draws import CROP, ORIENTATION, uniform
from satmip_jax.augmentation.planes import Planes, map_planes, multiply_axes

CROP_ATTEMPTS = 10  # torchvision's


def draw_crop(
    keys: Key[Array, " batch"], stored: int, cfg: AugmentConfig
) -> Float32[Array, "batch 4"]:
    """Draw a box for each image from torchvision's distribution.

    torchvision draws area and ratio up to ten times and takes the first box that fits. Here all ten
    are drawn and the first that fits is selected, which is the same distribution.

    Args:
        keys: one per image.
        stored: side of the stored squares, pixels.
        cfg: the range of area and ratio.

    Returns:
        Boxes (y, x, height, width) in whole pixels.
    """
    draws = uniform(keys, CROP, 2 * CROP_ATTEMPTS + 2)
    low, high = cfg.crop_scale
    area = (low + (high - low) * draws[:, :CROP_ATTEMPTS]) * (stored * stored)
    low, high = (math.log(r) for r in cfg.crop_ratio)
    ratio = jnp.exp(low + (high - low) * draws[:, CROP_ATTEMPTS:-2])
    width = jnp.round(jnp.sqrt(area * ratio))
    height = jnp.round(jnp.sqrt(area / ratio))
    fits = (width >= 1) & (width <= stored) & (height >= 1) & (height <= stored)
    first = jnp.argmax(fits, axis=1, keepdims=True)
    any_fits = jnp.any(fits, axis=1)
    width = jnp.take_along_axis(width, first, axis=1)[:, 0]
    height = jnp.take_along_axis(height, first, axis=1)[:, 0]

    # None fits: the largest centred box of an allowed ratio (the full square, if 1 is allowed).
    narrowest, widest = cfg.crop_ratio
    full_width = stored if widest >= 1 else round(stored * widest)
    full_height = stored if narrowest <= 1 else round(stored / narrowest)
    width = jnp.where(any_fits, width, jnp.float32(max(full_width, 1)))
    height = jnp.where(any_fits, height, jnp.float32(max(full_height, 1)))
    room_y, room_x = stored - height, stored - width
    # u < 1, but u * (room + 1) can round up to room + 1 in float32
    y = jnp.minimum(jnp.floor(draws[:, -2] * (room_y + 1)), room_y)
    x = jnp.minimum(jnp.floor(draws[:, -1] * (room_x + 1)), room_x)
    y = jnp.where(any_fits, y, jnp.floor(room_y / 2))
    x = jnp.where(any_fits, x, jnp.floor(room_x / 2))
    return jnp.stack([y, x, height, width], axis=1)


def draw_orientation(
    keys: Key[Array, " batch"], cfg: AugmentConfig
) -> tuple[Bool[Array, " batch"], Bool[Array, " batch"], Bool[Array, " batch"]]:
    """Draw the quarter turn and the flips of each image.

    Args:
        keys: one per image.
        cfg: which turns and flips are allowed.

    Returns:
        Whether to transpose, then to flip the rows, then to flip the columns.
    """
    draws = uniform(keys, ORIENTATION, 3)
    turns = jnp.floor(draws[:, 0] * (4 if cfg.rot90 else 1))
    # np.rot90 by one turn is a transpose with the rows reversed; by three, with the columns.
    transpose = (turns == 1) | (turns == 3)
    flip_rows = (turns == 1) | (turns == 2)
    flip_columns = (turns == 2) | (turns == 3)
    if cfg.vflip:
        flip_rows ^= draws[:, 1] < 0.5
    if cfg.hflip:
        flip_columns ^= draws[:, 2] < 0.5
    return transpose, flip_rows, flip_columns


def cut(
    images: UInt8[Array, "batch side side 3"],
    box: Float32[Array, "batch 4"],
    transpose: Bool[Array, " batch"],
    flip_rows: Bool[Array, " batch"],
    flip_columns: Bool[Array, " batch"],
    size: int,
    dtype: DTypeLike = jnp.float32,
) -> Planes:
    """Crop, resize, turn and flip.

    Args:
        images: the stored squares.
        box: see `draw_crop`.
        transpose: see `draw_orientation`.
        flip_rows: see `draw_orientation`.
        flip_columns: see `draw_orientation`.
        size: side of the views, pixels.
        dtype: of the planes, float32 or float16.

    Returns:
        Planes of shape (batch, size, size).
    """
    stored = images.shape[1]
    is_transposed = transpose[:, None, None, None]
    images = jnp.where(is_transposed, jnp.swapaxes(images, 1, 2), images)  # still bytes: cheap
    y, x, height, width = jnp.where(transpose, box[:, [1, 0, 3, 2]].T, box.T)
    rows = resize_weights(y, height, stored, size)
    columns = resize_weights(x, width, stored, size)
    rows = jnp.where(flip_rows[:, None, None], rows[:, ::-1], rows)
    columns = jnp.where(flip_columns[:, None, None], columns[:, ::-1], columns)
    red, green, blue = (images[..., c].astype(dtype) for c in range(3))
    planes = (red, green, blue)
    return map_planes(lambda x: (x / 255).clip(0, 1), multiply_axes(rows, planes, columns))


def resize_weights(
    start: Float32[Array, " batch"], length: Float32[Array, " batch"], stored: int, size: int
) -> Float32[Array, "batch {size} {stored}"]:
    """Return the matrices that cut [start, start + length) and resize it.

    This is PIL's antialiased bilinear filter: a triangle whose width grows with the reduction, over
    the pixels of the box only, with weights of sum 1.

    Args:
        start: first pixel of each interval.
        length: number of pixels of each interval.
        stored: number of pixels of the input.
        size: number of pixels of the output.
    """
    start, length = start[:, None, None], length[:, None, None]
    shrink = length / size
    centre = start + (jnp.arange(size, dtype=jnp.float32)[None, :, None] + 0.5) * shrink
    pixel = jnp.arange(stored, dtype=jnp.float32)[None, None, :] + 0.5
    weights = jnp.maximum(1 - jnp.abs(pixel - centre) / jnp.maximum(shrink, 1), 0)
    inside = (pixel > start) & (pixel < start + length)
    weights = jnp.where(inside, weights, 0)
    return weights / jnp.sum(weights, axis=-1, keepdims=True)
