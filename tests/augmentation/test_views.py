"""Views of a batch: keys, shapes, sharding, the view for evaluation, normalization."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from satmip_jax.augmentation.views import augment, center_view, crops, keys_of_images, normalize
from tests.augmentation.inputs import FULL, PLAIN, jit_augment, noise
from tests.augmentation.test_geometry import pil_crop


@pytest.mark.parametrize(
    "images",
    [np.zeros((2, 8, 9, 3), np.uint8), np.zeros((8, 8, 3), np.uint8), np.zeros((2, 8, 8, 3), "f4")],
)
def test_wrong_images_are_rejected(images, no_type_checks):
    with pytest.raises(ValueError, match="expected"):
        augment(jax.random.key(0), jnp.asarray(images), PLAIN)
    with pytest.raises(ValueError, match="expected"):
        center_view(jnp.asarray(images), 4)


def test_without_augmentation_the_view_is_the_image():
    images = noise(3, 16)
    views, _ = jit_augment(jax.random.key(0), jnp.asarray(images), PLAIN)
    assert views.dtype == jnp.float32
    np.testing.assert_allclose(views, images / np.float32(255), atol=1e-6)


def test_center_view_equals_pils_resize_of_the_image():
    images = noise(2, 48)
    for size in (20, 64):
        view = center_view(jnp.asarray(images), size)
        expected = [pil_crop(image, (0, 0, 48, 48), size) for image in images]
        np.testing.assert_allclose(view, expected, atol=2e-6)
    same = center_view(jnp.asarray(images), 48)
    np.testing.assert_allclose(same, images / np.float32(255), atol=1e-7)


def test_views_depend_on_key_and_image_alone():
    images = np.repeat(noise(1, 32), 16, axis=0)
    key = jax.random.key(7)
    views, crop = jit_augment(key, jnp.asarray(images), FULL)
    assert views.shape == (16, 24, 24, 3)
    assert crop.shape == (16, 4)
    assert views.dtype == crop.dtype == jnp.float32
    assert 0 <= views.min() < views.max() <= 1
    np.testing.assert_array_equal(views, jit_augment(key, jnp.asarray(images), FULL)[0])
    # one image, sixteen draws: all views differ, also from those under another key
    other, _ = jit_augment(jax.random.fold_in(key, 1), jnp.asarray(images), FULL)
    flat = np.concatenate([views, other]).reshape(32, -1)
    distance = np.abs(flat[:, None] - flat[None]).mean(axis=-1)
    assert distance[~np.eye(32, dtype=bool)].min() > 1e-3
    # the view of image i depends neither on other images nor on their number
    images[5:] = 0
    fewer, fewer_crop = jit_augment(key, jnp.asarray(images[:8]), FULL)
    np.testing.assert_allclose(fewer[:5], views[:5], atol=1e-6)
    np.testing.assert_array_equal(fewer_crop, crop[:8])
    drawn = crops(keys_of_images(key, 16), 32, FULL)
    np.testing.assert_allclose(drawn, crop, atol=1e-7)


def test_a_uniform_image_stays_uniform():
    images = jnp.full((16, 32, 32, 3), 130, jnp.uint8)
    views, _ = jit_augment(jax.random.key(0), images, FULL)
    assert np.ptp(views, axis=(1, 2)).max() < 1e-5
    assert np.ptp(views, axis=0).min() > 0.1  # the jitter changes its brightness


def test_sharded_over_devices_without_communication():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    images = jnp.asarray(noise(16, 32))
    sharded = jax.device_put(images, sharding)
    key = jax.random.key(0)
    step = jax.jit(augment, static_argnames="cfg", out_shardings=sharding)
    compiled = step.lower(key, sharded, FULL).compile()
    for collective in ("all-gather", "all-to-all", "all-reduce", "collective-permute"):
        assert collective not in compiled.as_text()
    for ours, expected in zip(compiled(key, sharded), jit_augment(key, images, FULL), strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_normalize():
    pixels = np.random.default_rng(0).random((2, 4, 4, 3), np.float32)
    mean, std = (0.4, 0.5, 0.6), (0.1, 0.2, 0.3)
    ours = normalize(jnp.asarray(pixels), mean, std)
    assert ours.dtype == jnp.float32
    np.testing.assert_allclose(ours, (pixels - np.array(mean)) / np.array(std), atol=1e-5)


def test_views_kept_in_float16_are_finer_than_a_pixel_value():
    images = noise(16, 32)
    images[:4] //= 64  # dark, with chroma near zero, where a hue divides by it
    images[4:6] = 0
    key = jax.random.key(3)
    half, crop = jax.jit(augment, static_argnums=(2, 3))(key, images, FULL, jnp.float16)
    views, expected_crop = jit_augment(key, jnp.asarray(images), FULL)
    assert half.dtype == jnp.float16
    np.testing.assert_array_equal(crop, expected_crop)
    assert np.isfinite(half).all()
    error = np.abs(np.asarray(half, np.float32) - views)
    assert error.mean() < 0.1 / 255
    # A turned hue may amplify the rounding of a nearly grey pixel.
    assert np.quantile(error, 0.999) < 1 / 255
