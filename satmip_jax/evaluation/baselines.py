"""Features that need no training: what a learned representation has to beat.

On EuroSAT (RGB, 64 pixels, standardised, kNN of k = 5 by cosine, percent), val of the random
split | of the spatial split: colour statistics 73.8 | 68.9, patch projections 80.5 | 73.9.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from numpy.typing import ArrayLike, NDArray

PATCH = 8  # pixels
FILTERS = 256
CHUNK = 512  # images on the device at a time


def colour_statistics(images: ArrayLike) -> NDArray[np.float32]:
    """Mean and standard deviation of each channel: uint8 (n, s, s, 3) -> (n, 6), in [0, 1]."""
    return _in_chunks(_colour_statistics, images)


def patch_projections(images: ArrayLike, seed: int = 0) -> NDArray[np.float32]:
    """Random projections of 8x8 patches with ReLU, pooled: a random one-layer network.

    uint8 (n, s, s, 3) -> float32 (n, 512): the mean over the patches of 256 projections, then
    their standard deviations. Patches do not overlap; what is left at the border is not seen.
    """
    shape = (PATCH, PATCH, 3, FILTERS)
    filters = jax.random.normal(jax.random.key(seed), shape, jnp.float32) / np.sqrt(PATCH**2 * 3)
    return _in_chunks(partial(_patch_projections, filters), images)


@jax.jit
def _colour_statistics(images: Array) -> Array:
    pixels = images.astype(jnp.float32) / 255
    return _pool(pixels)


@jax.jit
def _patch_projections(filters: Array, images: Array) -> Array:
    # Centred pixels, by no statistics of the data: a plain patch then has answers of both signs.
    pixels = images.astype(jnp.float32) / 255 - 0.5
    # (b, s, s, 3) . (8, 8, 3, f) -> (b, s/8, s/8, f)
    answers = lax.conv_general_dilated(
        pixels,
        filters,
        window_strides=(PATCH, PATCH),
        padding="VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=lax.Precision.HIGHEST,
    )
    return _pool(jax.nn.relu(answers))


def _pool(values: Array) -> Array:
    """Mean and standard deviation over the image, (b, h, w, c) -> (b, 2c)."""
    return jnp.concatenate([jnp.mean(values, axis=(1, 2)), jnp.std(values, axis=(1, 2))], axis=1)


def _in_chunks(function: Callable[[Array], Array], images: ArrayLike) -> NDArray[np.float32]:
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8:
        raise ValueError(f"images are {images.dtype} {images.shape}: expected uint8 (n, s, s, 3)")
    if min(images.shape[1:3]) < PATCH:
        raise ValueError(f"images of {images.shape[1:3]} pixels: expected {PATCH} or more a side")
    size = min(CHUNK, max(len(images), 1))
    parts = []
    for start in range(0, max(len(images), 1), size):
        chunk = images[start : start + size]
        short = size - len(chunk)  # filled up, so that one shape is compiled
        chunk = np.pad(chunk, ((0, short), (0, 0), (0, 0), (0, 0)))
        parts.append(np.asarray(function(jnp.asarray(chunk)))[: size - short])
    return np.concatenate(parts)
