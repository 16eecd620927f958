"""The blur against scipy's."""

import numpy as np
import scipy.ndimage

from satmip_jax.augmentation.blur import blur, blur_radius, draw_blur
from satmip_jax.augmentation.config import AugmentConfig
from tests.augmentation.inputs import keys, noise, planes, stack


def test_blur_equals_scipys_gaussian_with_reflected_borders():
    config = AugmentConfig(size=60, blur_p=0.6)  # 7 taps
    pixels = noise(40, 60).astype(np.float32) / 255
    ours = stack(blur(planes(pixels), keys(0, 40), config))
    sigma, chosen = np.asarray(draw_blur(keys(0, 40), config))
    assert 0.1 <= sigma.min() < 0.4
    assert 1.7 < sigma.max() <= 2
    assert 14 < chosen.sum() < 34
    for view, image, s, c in zip(ours, pixels, sigma, chosen, strict=True):
        options = {"sigma": s, "radius": 3, "mode": "mirror", "axes": (0, 1)}
        expected = scipy.ndimage.gaussian_filter(image, **options) if c else image
        np.testing.assert_allclose(view, expected, atol=2e-6)


def test_kernel_is_a_tenth_of_the_side():
    assert [2 * blur_radius(size) + 1 for size in (16, 64, 96, 224)] == [1, 7, 9, 23]
