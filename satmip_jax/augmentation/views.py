"""Views of an image, cut on the device inside the jitted step.

`augment` does for a whole batch what `torchvision.transforms` does for one image: random resized
crop (antialiased), flips, quarter turns, colour jitter, grey, Gaussian blur, in SimCLR's order.
Each image has its own draws, whatever batch it is part of and however many devices there are;
shapes are static, and there is no loop over images.

How it is made fast:

* A crop and its resize are two small dense matrices an image, one for each axis, so that a view is
  two batched matrix products; flips and quarter turns only change what goes into them.
* Brightness, contrast and saturation are one formula, `f x + (1 - f) target`, with three targets.
  That gives every image its own order of the operations, as in torchvision, without branches.
* Colours are three planes (b, h, w) until the end: products need no transposes, and the
  compiler fuses what is done to a pixel.

The crop is returned so that the metadata can follow it (`metadata.tabular.follow_crop`).

Sources: torchvision `RandomResizedCrop`, `ColorJitter`, `GaussianBlur`, and PIL's resize; SimCLR
(Chen et al. 2020), appendix A.

NOTE[DIFF]: SLIP blurs with PIL, whose kernel has no limit; here it is SimCLR's and torchvision's,
a tenth of the side, so that at 64 pixels (7 taps) the larger sigmas blur less than in SLIP.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import Array, lax

from satmip_jax.augmentation.config import AugmentConfig, AugmentError

CROP_ATTEMPTS = 10  # torchvision's
GREY_WEIGHTS = (0.2989, 0.587, 0.114)  # torchvision's rounding of ITU-R 601-2
# TF32 on a GPU, three bf16 passes on a TPU: finer than the 8 bits of a pixel, unlike one bf16 pass.
PRECISION = lax.Precision.HIGH

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
CROP, ORIENTATION, JITTER, GREY, BLUR = range(5)  # what an image's random numbers are drawn for
Planes = tuple[Array, Array, Array]  # red, green, blue, each (b, h, w) float32


def augment(key: Array, images: Array, cfg: AugmentConfig) -> tuple[Array, Array]:
    """One random view of each image; call it inside `jax.jit` with `cfg` static.

    Args:
      key: a PRNG key, of which image i gets its own by `keys_of_images`; or those keys, (b,).
      images: uint8 (b, s, s, 3), RGB.
      cfg: what to do.

    Returns:
      views: float32 (b, size, size, 3) in [0, 1].
      crop: float32 (b, 4), (y, x, height, width) of what was cut, as fractions of the stored
        square, before flips and turns. These leave the place and the scale of the view as they
        were, except that a quarter turn exchanges the view's axes.

    Raises:
      AugmentError: images of another type or shape.

    Example:
      >>> views, crop = augment(jax.random.fold_in(key, step), images, AugmentConfig(size=64))
      >>> views.shape, crop.shape
      ((256, 64, 64, 3), (256, 4))
    """
    _check_images(images)
    stored = images.shape[1]
    keys = keys_of_images(key, images.shape[0]) if key.ndim == 0 else key
    box = _draw_crop(keys, stored, cfg)
    planes = _cut(images, box, *_draw_orientation(keys, cfg), cfg.size)
    if cfg.jitter_p > 0 and max(cfg.jitter) > 0:
        factors, order = _draw_jitter(keys, cfg)
        planes = _jitter(planes, factors, order, hue=cfg.jitter[HUE] > 0)
    if cfg.grey_p > 0:
        chosen = _uniform(keys, GREY, 1)[:, 0] < cfg.grey_p
        grey = _grey(planes)
        planes = _map(lambda x: jnp.where(chosen[:, None, None], grey, x), planes)
    if cfg.blur_p > 0 and _blur_radius(cfg.size) > 0:
        planes = _blur(planes, keys, cfg)
    return jnp.stack(planes, axis=-1), box / jnp.float32(stored)


def crops(keys: Array, stored: int, cfg: AugmentConfig) -> Array:
    """The crops that `augment` cuts with these keys (b,) from squares of side `stored`: (b, 4)."""
    return _draw_crop(keys, stored, cfg) / jnp.float32(stored)


def keys_of_images(key: Array, batch: int, first: int | Array = 0) -> Array:
    """A key for each image of a batch, (b,); image i's depends on the key and on `first + i`."""
    numbers = jnp.arange(batch, dtype=jnp.uint32) + jnp.asarray(first, jnp.uint32)
    return jax.vmap(jax.random.fold_in, (None, 0))(key, numbers)


def center_view(images: Array, size: int) -> Array:
    """The whole square at `size` pixels, antialiased: the view for evaluation.

    Args:
      images: uint8 (b, s, s, 3).
      size: side of the view.

    Returns:
      float32 (b, size, size, 3) in [0, 1].
    """
    _check_images(images)
    stored = images.shape[1]
    pixels = images.astype(jnp.float32) / 255
    if size == stored:
        return pixels
    ends = jnp.array([[0.0, stored]], jnp.float32)
    weights = _resize_weights(ends[:, 0], ends[:, 1], stored, size)[0]
    exact = lax.Precision.HIGHEST  # once an image, not once a step
    # (o, h) . (b, h, w, c) -> (b, o, w, c), then (p, w) . (b, o, w, c) -> (b, o, p, c)
    rows = jnp.einsum("oh,bhwc->bowc", weights, pixels, precision=exact)
    return jnp.einsum("pw,bowc->bopc", weights, rows, precision=exact).clip(0, 1)


def normalize(images: Array, mean: Sequence[float], std: Sequence[float]) -> Array:
    """(images - mean) / std by channel; float32 (..., 3), with the statistics of the schema."""
    shape = (1,) * (images.ndim - 1) + (3,)
    centre = jnp.asarray(mean, jnp.float32).reshape(shape)
    scale = jnp.asarray(std, jnp.float32).reshape(shape)
    return (images - centre) / scale


# --- geometry ------------------------------------------------------------------------------------


def _draw_crop(keys: Array, stored: int, cfg: AugmentConfig) -> Array:
    """Boxes in whole pixels, float32 (b, 4) of (y, x, height, width): torchvision's distribution.

    torchvision draws area and ratio up to ten times and takes the first box that fits; here all
    ten are drawn and the first that fits is picked, which is the same distribution.
    """
    draws = _uniform(keys, CROP, 2 * CROP_ATTEMPTS + 2)
    low, high = cfg.crop_scale
    area = (low + (high - low) * draws[:, :CROP_ATTEMPTS]) * (stored * stored)
    low, high = (math.log(r) for r in cfg.crop_ratio)
    ratio = jnp.exp(low + (high - low) * draws[:, CROP_ATTEMPTS:-2])
    width = jnp.round(jnp.sqrt(area * ratio))
    height = jnp.round(jnp.sqrt(area / ratio))
    fits = (width >= 1) & (width <= stored) & (height >= 1) & (height <= stored)
    first = jnp.argmax(fits, axis=1, keepdims=True)
    found = jnp.any(fits, axis=1)
    width = jnp.take_along_axis(width, first, axis=1)[:, 0]
    height = jnp.take_along_axis(height, first, axis=1)[:, 0]

    # None fits: the largest centred box of an allowed ratio (the whole square, if 1 is allowed).
    narrowest, widest = cfg.crop_ratio
    whole_width = stored if widest >= 1 else round(stored * widest)
    whole_height = stored if narrowest <= 1 else round(stored / narrowest)
    width = jnp.where(found, width, jnp.float32(max(whole_width, 1)))
    height = jnp.where(found, height, jnp.float32(max(whole_height, 1)))
    room_y, room_x = stored - height, stored - width
    # u < 1, but u * (room + 1) can round up to room + 1 in float32
    y = jnp.minimum(jnp.floor(draws[:, -2] * (room_y + 1)), room_y)
    x = jnp.minimum(jnp.floor(draws[:, -1] * (room_x + 1)), room_x)
    y = jnp.where(found, y, jnp.floor(room_y / 2))
    x = jnp.where(found, x, jnp.floor(room_x / 2))
    return jnp.stack([y, x, height, width], axis=1)


def _draw_orientation(keys: Array, cfg: AugmentConfig) -> tuple[Array, Array, Array]:
    """(transpose, then flip rows, then flip columns): the three bools (b,) of a turn and flips."""
    draws = _uniform(keys, ORIENTATION, 3)
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


def _cut(
    images: Array, box: Array, transpose: Array, flip_rows: Array, flip_columns: Array, size: int
) -> Planes:
    """Crop, resize, turn and flip: uint8 (b, s, s, 3) -> planes (b, size, size) in [0, 1]."""
    stored = images.shape[1]
    turned = transpose[:, None, None, None]
    images = jnp.where(turned, jnp.swapaxes(images, 1, 2), images)  # still bytes: cheap
    y, x, height, width = jnp.where(transpose, box[:, [1, 0, 3, 2]].T, box.T)
    rows = _resize_weights(y, height, stored, size)
    columns = _resize_weights(x, width, stored, size)
    rows = jnp.where(flip_rows[:, None, None], rows[:, ::-1], rows)
    columns = jnp.where(flip_columns[:, None, None], columns[:, ::-1], columns)
    red, green, blue = (images[..., c].astype(jnp.float32) for c in range(3))
    planes = (red, green, blue)
    return _map(lambda x: (x / 255).clip(0, 1), _both_axes(rows, planes, columns))


def _resize_weights(start: Array, length: Array, stored: int, size: int) -> Array:
    """The matrix that cuts [start, start + length) and resizes it: (b,) -> (b, size, stored).

    PIL's antialiased bilinear filter: a triangle as wide as the shrinking, over the pixels of the
    box only, of sum 1.
    """
    start, length = start[:, None, None], length[:, None, None]
    shrink = length / size
    centre = start + (jnp.arange(size, dtype=jnp.float32)[None, :, None] + 0.5) * shrink
    pixel = jnp.arange(stored, dtype=jnp.float32)[None, None, :] + 0.5
    weights = jnp.maximum(1 - jnp.abs(pixel - centre) / jnp.maximum(shrink, 1), 0)
    inside = (pixel > start) & (pixel < start + length)
    weights = jnp.where(inside, weights, 0)
    return weights / jnp.sum(weights, axis=-1, keepdims=True)


def _both_axes(rows: Array, planes: Planes, columns: Array) -> Planes:
    """rows . plane . columns^T for each plane and image: (b, o, h), (b, h, w), (b, p, w)."""

    def one(plane: Array) -> Array:
        # (b, h, w) . (b, p, w) -> (b, h, p), then (b, o, h) . (b, h, p) -> (b, o, p)
        plane = jnp.einsum("bhw,bpw->bhp", plane, columns, precision=PRECISION)
        return jnp.einsum("boh,bhp->bop", rows, plane, precision=PRECISION)

    return _map(one, planes)


# --- colour --------------------------------------------------------------------------------------


def _draw_jitter(keys: Array, cfg: AugmentConfig) -> tuple[Array, Array]:
    """Factors (b, 4), the hue's in turns, and the order (b, n) of the n operations in use."""
    operations = [i for i, strength in enumerate(cfg.jitter) if strength > 0]
    draws = _uniform(keys, JITTER, 1 + 4 + len(operations))
    applied = (draws[:, 0] < cfg.jitter_p)[:, None]
    strength = jnp.array(cfg.jitter[:HUE], jnp.float32)[None]
    low = jnp.maximum(1 - strength, 0)
    factors = jnp.where(applied, low + (1 + strength - low) * draws[:, 1:4], 1)
    turns = jnp.where(applied, (2 * draws[:, 4:5] - 1) * cfg.jitter[HUE], 0)
    order = jnp.array(operations, jnp.int32)[jnp.argsort(draws[:, 5:], axis=1)]
    return jnp.concatenate([factors, turns], axis=1), order


def _jitter(planes: Planes, factors: Array, order: Array, *, hue: bool) -> Planes:
    """torchvision's ColorJitter, each image in its own order; `hue` if it is among them."""

    def step(planes: Planes, operation: Array) -> tuple[Planes, None]:
        factor = jnp.take_along_axis(factors, operation[:, None], axis=1)[:, :, None]
        operation = operation[:, None, None]
        grey = _grey(planes)
        mean = jnp.mean(grey, axis=(1, 2), keepdims=True)
        target = jnp.where(operation == SATURATION, grey, 0.0)
        target = jnp.where(operation == CONTRAST, mean, target)
        changed = _map(lambda x: (factor * x + (1 - factor) * target).clip(0, 1), planes)
        if hue:
            turned = _turn_hue(planes, factor)
            changed = _map(lambda new, old: jnp.where(operation == HUE, new, old), turned, changed)
        return changed, None

    # A loop: unrolled, the compiler fuses the steps into one and computes the first many times
    # (ten times slower on a CPU).
    return lax.scan(step, planes, order.T)[0]


def _turn_hue(planes: Planes, turn: Array) -> Planes:
    """Move the hue by `turn` of a circle, keeping HSV's saturation and value."""
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
        place = sixths + offset
        place = place - 6 * jnp.floor(place / 6)
        return value - chroma * jnp.minimum(place, 4 - place).clip(0, 1)

    return channel(5.0), channel(3.0), channel(1.0)


def _grey(planes: Planes) -> Array:
    red, green, blue = planes
    return GREY_WEIGHTS[0] * red + GREY_WEIGHTS[1] * green + GREY_WEIGHTS[2] * blue


# --- blur ----------------------------------------------------------------------------------------


def _blur_radius(size: int) -> int:
    """SimCLR's kernel is a tenth of the side, made odd: 23 taps at 224 pixels, 7 at 64."""
    return size // 20


def _draw_blur(keys: Array, cfg: AugmentConfig) -> tuple[Array, Array]:
    """Sigma (b,) and whether to blur (b,)."""
    draws = _uniform(keys, BLUR, 2)
    low, high = cfg.blur_sigma
    return low + (high - low) * draws[:, 0], draws[:, 1] < cfg.blur_p


def _blur(planes: Planes, keys: Array, cfg: AugmentConfig) -> Planes:
    # Products rather than shifted sums: twice as slow on a CPU (5 ms of 60), as fast or faster on
    # an accelerator, and of one cost whatever the number of taps.
    sigma, chosen = _draw_blur(keys, cfg)
    matrix = _blur_matrix(sigma, cfg.size, _blur_radius(cfg.size))
    same = jnp.eye(cfg.size, dtype=jnp.float32)[None]
    matrix = jnp.where(chosen[:, None, None], matrix, same)
    return _map(lambda x: x.clip(0, 1), _both_axes(matrix, planes, matrix))


def _blur_matrix(sigma: Array, size: int, radius: int) -> Array:
    """The banded matrix of the blur with reflected borders, (b,) -> (b, size, size)."""
    pixel = jnp.arange(size, dtype=jnp.float32)
    here, there, last = pixel[None, :, None], pixel[None, None, :], size - 1

    def weight(distance: Array) -> Array:
        gauss = jnp.exp(-0.5 * jnp.square(distance / sigma[:, None, None]))
        return jnp.where(jnp.abs(distance) <= radius, gauss, 0)

    # A pixel is met directly, and mirrored at either border; the border itself is not repeated.
    weights = weight(here - there)
    weights += jnp.where(there > 0, weight(here + there), 0)
    weights += jnp.where(there < last, weight(2 * last - here - there), 0)
    return weights / jnp.sum(weights, axis=-1, keepdims=True)


# --- small things --------------------------------------------------------------------------------


def _uniform(keys: Array, purpose: int, numbers: int) -> Array:
    """Numbers in [0, 1) for each image, (b, numbers), other ones for every purpose."""

    def one(key: Array) -> Array:
        return jax.random.uniform(jax.random.fold_in(key, purpose), (numbers,), jnp.float32)

    return jax.vmap(one)(keys)


def _map(function: Callable[..., Array], *planes: Planes) -> Planes:
    red, green, blue = (function(*channel) for channel in zip(*planes, strict=True))
    return red, green, blue


def _check_images(images: Array) -> None:
    if images.ndim != 4 or images.shape[1] != images.shape[2] or images.shape[3] != 3:
        raise AugmentError(f"images are of shape {images.shape}: expected (batch, side, side, 3)")
    if images.dtype != jnp.uint8:
        raise AugmentError(f"images are {images.dtype}: expected uint8 pixels, 0 to 255")
