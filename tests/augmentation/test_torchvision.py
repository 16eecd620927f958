"""Views against torchvision's operations (marker `oracle`)."""

import importlib
import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from satmip_jax.augmentation.blur import blur, draw_blur
from satmip_jax.augmentation.colour import (
    BRIGHTNESS,
    CONTRAST,
    HUE,
    SATURATION,
    grey,
    jitter,
)
from satmip_jax.augmentation.config import AugmentConfig
from satmip_jax.augmentation.geometry import cut
from tests.augmentation.inputs import colours, keys, noise, planes, stack
from tests.conftest import import_torchvision


def torchvision_functional(torch):
    """Import torchvision's operations, also beside a torch that its compiled part does not fit."""
    import_torchvision()
    return importlib.import_module("torchvision.transforms.v2.functional")


@pytest.mark.oracle
def test_operations_against_torchvision():
    torch = pytest.importorskip("torch")
    functional = torchvision_functional(torch)

    def torch_image(pixels):
        return torch.from_numpy(np.ascontiguousarray(np.moveaxis(pixels, -1, 0)))

    images = noise(6, 50)
    boxes = np.array(
        [
            (0, 0, 50, 50),
            (3, 7, 40, 30),
            (10, 0, 9, 44),
            (1, 1, 5, 5),
            (49, 0, 1, 9),
            (0, 4, 24, 24),
        ]
    )
    never = jnp.zeros(6, bool)
    ours = stack(cut(jnp.asarray(images), jnp.asarray(boxes, jnp.float32), never, never, never, 24))
    for view, image, box in zip(ours, images, boxes, strict=True):
        theirs = functional.resized_crop(
            torch_image(image.astype(np.float32) / 255), *map(int, box), [24, 24], antialias=True
        )
        np.testing.assert_allclose(view, np.moveaxis(theirs.numpy(), 0, -1), atol=1e-5)

    adjust = {
        BRIGHTNESS: functional.adjust_brightness,
        CONTRAST: functional.adjust_contrast,
        SATURATION: functional.adjust_saturation,
        HUE: functional.adjust_hue,
    }
    orders = np.array(list(itertools.permutations(range(4))), np.int32)
    pixels = colours(len(orders))
    factors = np.random.default_rng(1).uniform(0.3, 1.9, (len(orders), 4)).astype(np.float32)
    factors[:, HUE] = np.linspace(-0.45, 0.45, len(orders))
    ours = stack(jitter(planes(pixels), jnp.asarray(factors), jnp.asarray(orders), hue=True))
    for view, image, f, order in zip(ours, pixels, factors, orders, strict=True):
        theirs = torch_image(image)
        for operation in order:
            theirs = adjust[int(operation)](theirs, float(f[operation]))
        np.testing.assert_allclose(view, np.moveaxis(theirs.numpy(), 0, -1), atol=5e-5)

    expected = functional.rgb_to_grayscale(torch_image(pixels[0])).numpy()[0]
    np.testing.assert_allclose(grey(planes(pixels[:1]))[0], expected, atol=1e-6)

    config = AugmentConfig(size=50, blur_p=1.0)
    squares = images.astype(np.float32) / 255
    ours = stack(blur(planes(squares), keys(0, 6), config))
    for view, image, sigma in zip(
        ours, squares, np.asarray(draw_blur(keys(0, 6), config)[0]), strict=True
    ):
        theirs = functional.gaussian_blur(torch_image(image), [5, 5], [float(sigma)] * 2)
        np.testing.assert_allclose(view, np.moveaxis(theirs.numpy(), 0, -1), atol=1e-5)
