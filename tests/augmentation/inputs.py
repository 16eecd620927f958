"""Inputs of the views' tests, in numpy."""

import jax
import jax.numpy as jnp
import numpy as np

from satmip_jax.augmentation.config import AugmentConfig
from satmip_jax.augmentation.planes import Planes
from satmip_jax.augmentation.views import augment, keys_of_images

jit_augment = jax.jit(augment, static_argnames="cfg")
PLAIN = AugmentConfig(
    size=16, hflip=False, jitter_p=0.0, grey_p=0.0, blur_p=0.0, crop_scale=(1, 1), crop_ratio=(1, 1)
)
FULL = AugmentConfig(size=24, vflip=True, rot90=True)


def keys(seed: int, batch: int) -> jax.Array:
    return keys_of_images(jax.random.key(seed), batch)


def noise(batch: int, side: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (batch, side, side, 3), np.uint8)


def colours(batch: int = 24, side: int = 6, seed: int = 0) -> np.ndarray:
    """Return random colours in [0, 1], with greys, black and white among them."""
    pixels = np.random.default_rng(seed).random((batch, side, side, 3), np.float32)
    pixels[:, 0, 0], pixels[:, 0, 1], pixels[:, 0, 2] = 0, 1, 0.3
    pixels[:, 1, 0], pixels[:, 1, 1] = (0.2, 0.2, 0.9), (0.8, 0.8, 0.1)
    return pixels


def planes(pixels: np.ndarray) -> Planes:
    return tuple(jnp.asarray(pixels[..., c]) for c in range(3))


def stack(result: Planes) -> np.ndarray:
    return np.stack(result, axis=-1)
