"""Crops, turns and flips against PIL, numpy and torchvision's distribution."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from PIL import Image

from satmip_jax.augmentation.config import AugmentConfig
from satmip_jax.augmentation.geometry import cut, draw_crop
from tests.augmentation.inputs import FULL, PLAIN, jit_augment, keys, noise, stack


def pil_crop(image: np.ndarray, box: tuple[int, ...], size: int) -> np.ndarray:
    """Resize one box with PIL's antialiasing, in float32 (PIL rounds only in its 8-bit modes)."""
    y, x, height, width = box
    cut = image[y : y + height, x : x + width].astype(np.float32)
    bands = [
        np.asarray(Image.fromarray(cut[..., c]).resize((size, size), Image.Resampling.BILINEAR))
        for c in range(3)
    ]
    return np.stack(bands, axis=-1) / 255


@pytest.mark.parametrize("size", [8, 37, 50])
def test_cut_equals_pils_antialiased_resize_with_every_turn_and_flip(size):
    side, rng = 37, np.random.default_rng(size)
    orientations = np.array(list(itertools.product([False, True], repeat=3)))
    boxes = [(0, 0, side, side), (36, 36, 1, 1), (3, 0, 1, 37), (30, 5, 7, 2)]
    while len(boxes) < 16:
        height, width = rng.integers(1, side + 1, 2)
        boxes.append(
            (rng.integers(side - height + 1), rng.integers(side - width + 1), height, width)
        )
    images = noise(16, side)
    order = np.arange(16) % 8
    views = stack(
        cut(
            jnp.asarray(images),
            jnp.array(boxes, jnp.float32),
            *jnp.asarray(orientations[order].T),
            size,
        )
    )
    for view, image, box, (transpose, flip_rows, flip_columns) in zip(
        views, images, boxes, orientations[order], strict=True
    ):
        expected = pil_crop(image, box, size)
        expected = expected.swapaxes(0, 1) if transpose else expected
        expected = expected[::-1] if flip_rows else expected
        expected = expected[:, ::-1] if flip_columns else expected
        np.testing.assert_allclose(view, expected, atol=5e-6)


def test_quarter_turns_equal_numpys_and_are_equally_frequent():
    image = noise(1, 16)
    images = jnp.asarray(np.repeat(image, 400, axis=0))
    config = dataclasses.replace(PLAIN, rot90=True)
    views, _ = jit_augment(jax.random.key(0), images, config)
    turned = np.stack([np.rot90(image[0], k) for k in range(4)]).astype(np.float32) / 255
    which = np.abs(np.asarray(views)[:, None] - turned[None]).max(axis=(2, 3, 4)) < 1e-6
    np.testing.assert_array_equal(which.sum(axis=1), 1)
    assert scipy.stats.chisquare(which.sum(axis=0)).pvalue > 1e-3


@pytest.mark.parametrize(("flip", "axis"), [("hflip", 2), ("vflip", 1)])
def test_flips(flip, axis):
    images = noise(200, 16)
    config = dataclasses.replace(PLAIN, **{flip: True})
    views, crop = jit_augment(jax.random.key(0), jnp.asarray(images), config)
    same = np.abs(views - images / np.float32(255)).max(axis=(1, 2, 3)) < 1e-6
    mirrored = np.abs(views - np.flip(images, axis) / np.float32(255)).max(axis=(1, 2, 3)) < 1e-6
    assert np.all(same ^ mirrored)
    assert 70 < mirrored.sum() < 130
    np.testing.assert_array_equal(crop, np.tile([0, 0, 1, 1], (200, 1)))


def torchvision_boxes(rng, count: int, side: int, scale, ratio) -> np.ndarray:
    """Draw boxes like `RandomResizedCrop.get_params`, one at a time."""
    boxes = []
    for _ in range(count):
        for _ in range(10):
            area = side * side * rng.uniform(*scale)
            aspect = np.exp(rng.uniform(*np.log(ratio)))
            width, height = round((area * aspect) ** 0.5), round((area / aspect) ** 0.5)
            if 0 < width <= side and 0 < height <= side:
                y, x = rng.integers(0, side - height + 1), rng.integers(0, side - width + 1)
                break
        else:
            width, height = side, side
            if ratio[0] > 1:
                height = round(width / ratio[0])
            elif ratio[1] < 1:
                width = round(height * ratio[1])
            y, x = (side - height) // 2, (side - width) // 2
        boxes.append((y, x, height, width))
    return np.array(boxes)


@pytest.mark.parametrize(
    ("scale", "ratio"), [((0.08, 1.0), (3 / 4, 4 / 3)), ((0.5, 0.9), (1.0, 2.0)), ((1, 1), (2, 3))]
)
def test_boxes_have_torchvisions_distribution(scale, ratio):
    config = AugmentConfig(size=32, crop_scale=scale, crop_ratio=ratio)
    boxes = np.asarray(draw_crop(keys(1, 4000), 224, config))
    expected = torchvision_boxes(np.random.default_rng(0), 4000, 224, scale, ratio)
    np.testing.assert_array_equal(boxes, np.round(boxes))
    assert boxes[:, :2].min() >= 0
    assert boxes[:, 2:].min() >= 1
    assert (boxes[:, :2] + boxes[:, 2:]).max() <= 224

    def marginals(b):  # these differ if any part of the distribution does
        y, x, height, width = b.T.astype(np.float64)
        return y, x, height, width, height * width, width / height, y + height, x + width

    for ours, theirs in zip(marginals(boxes), marginals(expected), strict=True):
        assert scipy.stats.ks_2samp(ours, theirs).pvalue > 1e-3


def test_all_positions_are_equally_likely():
    config = AugmentConfig(size=4, crop_scale=(0.25, 0.25), crop_ratio=(1, 1))
    boxes = np.asarray(draw_crop(keys(0, 1800), 4, config))
    positions, counts = np.unique(boxes, axis=0, return_counts=True)
    assert positions.tolist() == [[y, x, 2, 2] for y in range(3) for x in range(3)]
    assert scipy.stats.chisquare(counts).pvalue > 1e-3


def test_the_returned_crop_is_the_part_that_was_cut():
    """On a ramp the mean of a view is the centre of its box, and its spread the box's size."""
    side = 64
    ramp = np.arange(side, dtype=np.uint8) * 4
    image = np.zeros((side, side, 3), np.uint8)
    image[..., 0], image[..., 1] = ramp[:, None], ramp[None, :]
    images = jnp.asarray(np.repeat(image[None], 64, axis=0))
    config = dataclasses.replace(FULL, jitter_p=0.0, grey_p=0.0, blur_p=0.0)
    views, crop = jit_augment(jax.random.key(3), images, config)
    pixels = np.asarray(views) * 255 / 4 + 0.5  # value -> coordinate of the pixel's centre
    crop = np.asarray(crop) * side
    for channel in range(2):
        start, length = crop[:, channel], crop[:, 2 + channel]
        values = pixels[..., channel]
        np.testing.assert_allclose(values.mean(axis=(1, 2)), start + length / 2, atol=0.05)
        spread = values.max(axis=(1, 2)) - values.min(axis=(1, 2))
        # the centres of the outermost pixels of the view lie half a pixel inside the box
        np.testing.assert_allclose(spread, length * (1 - 1 / 24), atol=1)
    assert np.ptp(crop[:, 2]) > 20  # the boxes differ
