"""Colour jitter and grey against torchvision's formulas and matplotlib's HSV."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import matplotlib.colors
import numpy as np
import scipy.stats

from satmip_jax.augmentation.colour import (
    BRIGHTNESS,
    CONTRAST,
    HUE,
    SATURATION,
    draw_jitter,
    jitter,
)
from satmip_jax.augmentation.config import AugmentConfig
from tests.augmentation.inputs import PLAIN, colours, jit_augment, keys, noise, planes, stack


def grey_of(pixels: np.ndarray) -> np.ndarray:
    return (pixels @ np.array([0.2989, 0.587, 0.114], pixels.dtype))[..., None]


def naive_jitter(pixels: np.ndarray, factors: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Apply torchvision's formulas to one image (h, w, 3); the hue by matplotlib's HSV."""
    for operation in order:
        factor = factors[operation]
        if operation == HUE:
            hsv = matplotlib.colors.rgb_to_hsv(pixels)
            hsv[..., 0] = (hsv[..., 0] + factor) % 1
            pixels = matplotlib.colors.hsv_to_rgb(hsv)
            continue
        target = {
            BRIGHTNESS: 0.0,
            CONTRAST: grey_of(pixels).mean(),
            SATURATION: grey_of(pixels),
        }[operation]
        pixels = np.clip(factor * pixels + (1 - factor) * target, 0, 1)
    return pixels


def test_jitter_equals_torchvisions_in_every_order():
    orders = np.array(list(itertools.permutations(range(4))), np.int32)
    pixels = colours(len(orders))
    factors = np.random.default_rng(0).uniform(0.3, 1.9, (len(orders), 4)).astype(np.float32)
    factors[:, HUE] = np.linspace(-0.5, 0.5, len(orders))
    ours = stack(jitter(planes(pixels), jnp.asarray(factors), jnp.asarray(orders), hue=True))
    for view, image, f, order in zip(ours, pixels, factors, orders, strict=True):
        np.testing.assert_allclose(view, naive_jitter(image.astype(float), f, order), atol=2e-5)


def test_jitter_has_torchvisions_distribution():
    count = 6000
    config = AugmentConfig(size=8, jitter=(0.4, 1.5, 0.2, 0.1), jitter_p=0.75)
    factors, order = map(np.asarray, draw_jitter(keys(0, count), config))
    identity = np.all(factors == [1, 1, 1, 0], axis=1)
    assert scipy.stats.binomtest(int(identity.sum()), count, 0.25).pvalue > 1e-3
    ranges = [(0.6, 1.4), (0.0, 2.5), (0.8, 1.2), (-0.1, 0.1)]
    for column, (low, high) in zip(factors[~identity].T, ranges, strict=True):
        assert scipy.stats.kstest((column - low) / (high - low), "uniform").pvalue > 1e-3
    counts = np.unique(order, axis=0, return_counts=True)[1]
    assert len(counts) == 24
    assert scipy.stats.chisquare(counts).pvalue > 1e-3
    # draws are independent of each other, within an image and between neighbours
    draws = np.concatenate([factors, np.roll(factors, 1, axis=0)], axis=1)
    draws = draws[~identity & ~np.roll(identity, 1)]
    assert np.abs(np.corrcoef(draws.T) - np.eye(8)).max() < 0.07


def test_operations_without_strength_are_left_out():
    config = AugmentConfig(size=8, jitter=(0.4, 0.0, 0.3, 0.0))
    _, order = draw_jitter(keys(0, 50), config)
    assert {tuple(row) for row in np.asarray(order)} == {(0, 2), (2, 0)}
    views, _ = jit_augment(
        jax.random.key(0),
        jnp.full((8, 8, 8, 3), 200, jnp.uint8),
        dataclasses.replace(PLAIN, jitter=(0.1, 0.0, 0.0, 0.0), jitter_p=1.0),
    )
    assert 0.7 < views.min() < views.max() < 0.87


def test_grey_is_applied_to_the_images_drawn():
    images = jnp.asarray(noise(300, 8))
    config = dataclasses.replace(PLAIN, size=8, grey_p=0.3)
    views = np.asarray(jit_augment(jax.random.key(0), images, config)[0])
    pixels = np.asarray(images, np.float32) / 255
    is_grey = np.ptp(views, axis=-1).max(axis=(1, 2)) == 0
    assert 60 < is_grey.sum() < 120
    expected = np.where(is_grey[:, None, None, None], grey_of(pixels), pixels)
    np.testing.assert_allclose(views, expected, atol=1e-6)
