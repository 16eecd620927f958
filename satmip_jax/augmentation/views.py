"""Views of an image, computed on the device inside the jitted step.

`augment` does for a batch what `torchvision.transforms` does for one image: random resized crop
(antialiased), flips, quarter turns, colour jitter, grey, Gaussian blur, in SimCLR's order. Each
image has its own draws, whatever batch it is part of and however many devices there are. Shapes are
static, and there is no loop over images.

The crop is returned so that the metadata can follow it (`metadata.tabular.follow_crop`).

Source: SimCLR (Chen et al. 2020), appendix A.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32, Integer, Key, PRNGKeyArray, UInt8

from satmip_jax.augmentation.blur import blur, blur_radius
from satmip_jax.augmentation.colour import HUE, draw_jitter, grey, jitter
from satmip_jax.augmentation.config import AugmentConfig, AugmentError
from satmip_jax.augmentation.draws import GREY, uniform
from satmip_jax.augmentation.geometry import cut, draw_crop, draw_orientation, resize_weights
from satmip_jax.augmentation.planes import map_planes


def augment(
    key: PRNGKeyArray | Key[Array, " batch"],
    images: UInt8[Array, "batch side side 3"],
    cfg: AugmentConfig,
    dtype: DTypeLike = jnp.float32,
) -> tuple[Float[Array, "batch {cfg.size} {cfg.size} 3"], Float32[Array, "batch 4"]]:
    """Draw one random view of each image; call it inside `jax.jit` with `cfg` static.

    Args:
        key: a PRNG key, from which `keys_of_images` makes one for each image; or those keys.
        images: RGB.
        cfg: the distribution of the views.
        dtype: to keep the views in between the operations, which compute in float32: float32, or
            float16 for half the memory traffic.

    Returns:
        views: RGB in [0, 1], of that dtype.
        crop: (y, x, height, width) of the part that was cut, as fractions of the stored square,
            before flips and turns. These change neither location nor scale of the view, except that
            a quarter turn exchanges the view's axes.

    Raises:
        AugmentError: images of another dtype or shape.

    Example:
        >>> from satmip_jax.augmentation.config import AugmentConfig
        >>> from satmip_jax.augmentation.views import augment
        >>> key, images = jax.random.key(0), jnp.zeros((4, 96, 96, 3), jnp.uint8)
        >>> views, crop = augment(key, images, AugmentConfig(size=64))
        >>> views.shape, crop.shape
        ((4, 64, 64, 3), (4, 4))
    """
    _check_images(images)
    stored = images.shape[1]
    keys = keys_of_images(key, images.shape[0]) if key.ndim == 0 else key
    box = draw_crop(keys, stored, cfg)
    planes = cut(images, box, *draw_orientation(keys, cfg), cfg.size, dtype)
    if cfg.jitter_p > 0 and max(cfg.jitter) > 0:
        factors, order = draw_jitter(keys, cfg)
        planes = jitter(planes, factors, order, hue=cfg.jitter[HUE] > 0)
    if cfg.grey_p > 0:
        chosen = uniform(keys, GREY, 1)[:, 0] < cfg.grey_p
        grey_plane = grey(planes).astype(dtype)
        planes = map_planes(lambda x: jnp.where(chosen[:, None, None], grey_plane, x), planes)
    if cfg.blur_p > 0 and blur_radius(cfg.size) > 0:
        planes = blur(planes, keys, cfg)
    return jnp.stack(planes, axis=-1), box / jnp.float32(stored)


def crops(keys: Key[Array, " batch"], stored: int, cfg: AugmentConfig) -> Float32[Array, "batch 4"]:
    """Return the crops that `augment` draws, without computing the views.

    Args:
        keys: one per image.
        stored: side of the stored squares, pixels.
        cfg: the distribution of the views.

    Returns:
        (y, x, height, width) as fractions of the stored square.
    """
    return draw_crop(keys, stored, cfg) / jnp.float32(stored)


def keys_of_images(
    key: PRNGKeyArray, batch: int, first: int | Integer[Array, ""] = 0
) -> Key[Array, " {batch}"]:
    """Return a key for each image of a batch; image i's depends on the key and on `first + i`.

    Args:
        key: the key of the batch.
        batch: number of images.
        first: number of the first image, where this batch is part of a larger one.
    """
    numbers = jnp.arange(batch, dtype=jnp.uint32) + jnp.asarray(first, jnp.uint32)
    return jax.vmap(jax.random.fold_in, (None, 0))(key, numbers)


def center_view(
    images: UInt8[Array, "batch side side 3"], size: int
) -> Float32[Array, "batch {size} {size} 3"]:
    """Return the view for evaluation: the full square, resized with antialiasing.

    Args:
        images: RGB.
        size: side of the view, pixels.

    Returns:
        RGB in [0, 1].

    Raises:
        AugmentError: images of another dtype or shape.
    """
    _check_images(images)
    stored = images.shape[1]
    pixels = images.astype(jnp.float32) / 255
    if size == stored:
        return pixels
    ends = jnp.array([[0.0, stored]], jnp.float32)
    weights = resize_weights(ends[:, 0], ends[:, 1], stored, size)[0]
    exact = lax.Precision.HIGHEST  # once per image, not once per step
    # (o, h) . (b, h, w, c) -> (b, o, w, c), then (p, w) . (b, o, w, c) -> (b, o, p, c)
    rows = jnp.einsum("oh,bhwc->bowc", weights, pixels, precision=exact)
    return jnp.einsum("pw,bowc->bopc", weights, rows, precision=exact).clip(0, 1)


def normalize(
    images: Float[Array, "*batch height width 3"], mean: Sequence[float], std: Sequence[float]
) -> Float32[Array, "*batch height width 3"]:
    """Return `(images - mean) / std` for each channel.

    Args:
        images: RGB in [0, 1].
        mean: of each channel; from the schema of the data set.
        std: of each channel; from the schema of the data set.
    """
    shape = (1,) * (images.ndim - 1) + (3,)
    centre = jnp.asarray(mean, jnp.float32).reshape(shape)
    scale = jnp.asarray(std, jnp.float32).reshape(shape)
    return (images.astype(jnp.float32) - centre) / scale


def _check_images(images: Array) -> None:
    """Raise an AugmentError unless `images` are uint8 squares."""
    if images.ndim != 4 or images.shape[1] != images.shape[2] or images.shape[3] != 3:
        raise AugmentError(f"images have shape {images.shape}: expected (batch, side, side, 3)")
    if images.dtype != jnp.uint8:
        raise AugmentError(f"images are {images.dtype}: expected uint8 pixels, 0 to 255")
