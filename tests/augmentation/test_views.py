"""Views against PIL, scipy, matplotlib and plain formulas (torchvision: marker `oracle`)."""

import dataclasses
import importlib
import itertools

import jax
import jax.numpy as jnp
import matplotlib.colors
import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from PIL import Image

from satmip_jax.augmentation.config import AugmentConfig
from satmip_jax.augmentation.views import (
    BRIGHTNESS,
    CONTRAST,
    HUE,
    SATURATION,
    Planes,
    _blur,
    _blur_radius,
    _cut,
    _draw_blur,
    _draw_crop,
    _draw_jitter,
    _grey,
    _jitter,
    augment,
    center_view,
    keys_of_images,
    normalize,
)
from tests.conftest import import_torchvision

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
    """Random colours in [0, 1], greys, black and white among them."""
    pixels = np.random.default_rng(seed).random((batch, side, side, 3), np.float32)
    pixels[:, 0, 0], pixels[:, 0, 1], pixels[:, 0, 2] = 0, 1, 0.3
    pixels[:, 1, 0], pixels[:, 1, 1] = (0.2, 0.2, 0.9), (0.8, 0.8, 0.1)
    return pixels


def planes(pixels: np.ndarray) -> Planes:
    return tuple(jnp.asarray(pixels[..., c]) for c in range(3))


def stack(result: Planes) -> np.ndarray:
    return np.stack(result, axis=-1)


# --- configuration -------------------------------------------------------------------------------


def test_config_is_hashable_and_takes_lists():
    config = AugmentConfig(size=64, crop_scale=[0.5, 1], jitter=[0.4, 0.4, 0.2, 0])
    assert config == AugmentConfig(size=64, crop_scale=(0.5, 1.0), jitter=(0.4, 0.4, 0.2, 0.0))
    assert len({config, dataclasses.replace(config)}) == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("size", 0),
        ("size", 2.5),
        ("size", True),
        ("crop_scale", (0, 1)),
        ("crop_scale", (0.5, 0.4)),
        ("crop_scale", (0.5, 1.1)),
        ("crop_scale", 0.5),
        ("crop_scale", (0.1, float("nan"))),
        ("crop_ratio", (-1, 1)),
        ("crop_ratio", (0.5, 0.6, 0.7)),
        ("hflip", 0.5),
        ("rot90", "yes"),
        ("jitter", (0.4, 0.4, 0.4)),
        ("jitter", (0.4, -0.1, 0.4, 0.1)),
        ("jitter", (0.4, 0.4, 0.4, 0.6)),
        ("jitter_p", 1.5),
        ("grey_p", -0.1),
        ("blur_p", float("nan")),
        ("blur_p", "half"),
        ("blur_sigma", (0, 2)),
        ("blur_sigma", (2, 1)),
    ],
)
def test_config_names_what_is_wrong(name, value):
    with pytest.raises(ValueError, match=f"AugmentConfig.{name} is "):
        AugmentConfig(**{"size": 64, name: value})


@pytest.mark.parametrize(
    "images",
    [np.zeros((2, 8, 9, 3), np.uint8), np.zeros((8, 8, 3), np.uint8), np.zeros((2, 8, 8, 3), "f4")],
)
def test_images_of_another_kind_are_refused(images):
    with pytest.raises(ValueError, match="expected"):
        augment(jax.random.key(0), jnp.asarray(images), PLAIN)
    with pytest.raises(ValueError, match="expected"):
        center_view(jnp.asarray(images), 4)


# --- crop ----------------------------------------------------------------------------------------


def pil_crop(image: np.ndarray, box: tuple[int, ...], size: int) -> np.ndarray:
    """PIL's antialiased resize of one box, in float32 (PIL rounds only in its 8-bit modes)."""
    y, x, height, width = box
    cut = image[y : y + height, x : x + width].astype(np.float32)
    bands = [
        np.asarray(Image.fromarray(cut[..., c]).resize((size, size), Image.Resampling.BILINEAR))
        for c in range(3)
    ]
    return np.stack(bands, axis=-1) / 255


@pytest.mark.parametrize("size", [8, 37, 50])
def test_cut_is_pils_antialiased_resize_with_every_turn_and_flip(size):
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
        _cut(jnp.asarray(images), jnp.array(boxes, jnp.float32), *orientations[order].T, size)
    )
    for view, image, box, (transpose, flip_rows, flip_columns) in zip(
        views, images, boxes, orientations[order], strict=True
    ):
        expected = pil_crop(image, box, size)
        expected = expected.swapaxes(0, 1) if transpose else expected
        expected = expected[::-1] if flip_rows else expected
        expected = expected[:, ::-1] if flip_columns else expected
        np.testing.assert_allclose(view, expected, atol=5e-6)


def test_quarter_turns_are_those_of_numpy_and_equally_frequent():
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


def test_nothing_asked_is_the_image_itself():
    images = noise(3, 16)
    views, _ = jit_augment(jax.random.key(0), jnp.asarray(images), PLAIN)
    assert views.dtype == jnp.float32
    np.testing.assert_allclose(views, images / np.float32(255), atol=1e-6)


def torchvision_boxes(rng, count: int, side: int, scale, ratio) -> np.ndarray:
    """`RandomResizedCrop.get_params`, one box at a time."""
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
    boxes = np.asarray(_draw_crop(keys(1, 4000), 224, config))
    expected = torchvision_boxes(np.random.default_rng(0), 4000, 224, scale, ratio)
    np.testing.assert_array_equal(boxes, np.round(boxes))
    assert boxes[:, :2].min() >= 0
    assert boxes[:, 2:].min() >= 1
    assert (boxes[:, :2] + boxes[:, 2:]).max() <= 224

    def views(b):  # what differs if any part of the distribution does
        y, x, height, width = b.T.astype(np.float64)
        return y, x, height, width, height * width, width / height, y + height, x + width

    for ours, theirs in zip(views(boxes), views(expected), strict=True):
        assert scipy.stats.ks_2samp(ours, theirs).pvalue > 1e-3


def test_every_place_is_equally_likely():
    config = AugmentConfig(size=4, crop_scale=(0.25, 0.25), crop_ratio=(1, 1))
    boxes = np.asarray(_draw_crop(keys(0, 1800), 4, config))
    places, counts = np.unique(boxes, axis=0, return_counts=True)
    assert places.tolist() == [[y, x, 2, 2] for y in range(3) for x in range(3)]
    assert scipy.stats.chisquare(counts).pvalue > 1e-3


def test_the_crop_returned_is_what_was_cut():
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
        # the outermost pixels of the view are half of one of its pixels inside the box
        np.testing.assert_allclose(spread, length * (1 - 1 / 24), atol=1)
    assert np.ptp(crop[:, 2]) > 20  # the boxes do differ


def test_center_view_is_pils_resize_of_the_whole():
    images = noise(2, 48)
    for size in (20, 64):
        view = center_view(jnp.asarray(images), size)
        expected = [pil_crop(image, (0, 0, 48, 48), size) for image in images]
        np.testing.assert_allclose(view, expected, atol=2e-6)
    same = center_view(jnp.asarray(images), 48)
    np.testing.assert_allclose(same, images / np.float32(255), atol=1e-7)


# --- colour --------------------------------------------------------------------------------------


def grey_of(pixels: np.ndarray) -> np.ndarray:
    return (pixels @ np.array([0.2989, 0.587, 0.114], pixels.dtype))[..., None]


def naive_jitter(pixels: np.ndarray, factors: np.ndarray, order: np.ndarray) -> np.ndarray:
    """One image (h, w, 3) through torchvision's formulas; the hue by matplotlib's HSV."""
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


def test_jitter_is_torchvisions_in_every_order():
    orders = np.array(list(itertools.permutations(range(4))), np.int32)
    pixels = colours(len(orders))
    factors = np.random.default_rng(0).uniform(0.3, 1.9, (len(orders), 4)).astype(np.float32)
    factors[:, HUE] = np.linspace(-0.5, 0.5, len(orders))
    ours = stack(_jitter(planes(pixels), jnp.asarray(factors), jnp.asarray(orders), hue=True))
    for view, image, f, order in zip(ours, pixels, factors, orders, strict=True):
        np.testing.assert_allclose(view, naive_jitter(image.astype(float), f, order), atol=2e-5)


def test_jitter_draws():
    count = 6000
    config = AugmentConfig(size=8, jitter=(0.4, 1.5, 0.2, 0.1), jitter_p=0.75)
    factors, order = map(np.asarray, _draw_jitter(keys(0, count), config))
    identity = np.all(factors == [1, 1, 1, 0], axis=1)
    assert scipy.stats.binomtest(int(identity.sum()), count, 0.25).pvalue > 1e-3
    ranges = [(0.6, 1.4), (0.0, 2.5), (0.8, 1.2), (-0.1, 0.1)]
    for column, (low, high) in zip(factors[~identity].T, ranges, strict=True):
        assert scipy.stats.kstest((column - low) / (high - low), "uniform").pvalue > 1e-3
    counts = np.unique(order, axis=0, return_counts=True)[1]
    assert len(counts) == 24
    assert scipy.stats.chisquare(counts).pvalue > 1e-3
    # no draw predicts another, of the same image or of its neighbour
    draws = np.concatenate([factors, np.roll(factors, 1, axis=0)], axis=1)
    draws = draws[~identity & ~np.roll(identity, 1)]
    assert np.abs(np.corrcoef(draws.T) - np.eye(8)).max() < 0.07


def test_operations_without_strength_are_left_out():
    config = AugmentConfig(size=8, jitter=(0.4, 0.0, 0.3, 0.0))
    _, order = _draw_jitter(keys(0, 50), config)
    assert {tuple(row) for row in np.asarray(order)} == {(0, 2), (2, 0)}
    views, _ = jit_augment(
        jax.random.key(0),
        jnp.full((8, 8, 8, 3), 200, jnp.uint8),
        dataclasses.replace(PLAIN, jitter=(0.1, 0.0, 0.0, 0.0), jitter_p=1.0),
    )
    assert 0.7 < views.min() < views.max() < 0.87


def test_grey_where_drawn():
    images = jnp.asarray(noise(300, 8))
    config = dataclasses.replace(PLAIN, size=8, grey_p=0.3)
    views = np.asarray(jit_augment(jax.random.key(0), images, config)[0])
    pixels = np.asarray(images, np.float32) / 255
    is_grey = np.ptp(views, axis=-1).max(axis=(1, 2)) == 0
    assert 60 < is_grey.sum() < 120
    expected = np.where(is_grey[:, None, None, None], grey_of(pixels), pixels)
    np.testing.assert_allclose(views, expected, atol=1e-6)


# --- blur ----------------------------------------------------------------------------------------


def test_blur_is_scipys_gaussian_with_reflected_borders():
    config = AugmentConfig(size=60, blur_p=0.6)  # 7 taps
    pixels = noise(40, 60).astype(np.float32) / 255
    ours = stack(_blur(planes(pixels), keys(0, 40), config))
    sigma, chosen = np.asarray(_draw_blur(keys(0, 40), config))
    assert 0.1 <= sigma.min() < 0.4
    assert 1.7 < sigma.max() <= 2
    assert 14 < chosen.sum() < 34
    for view, image, s, c in zip(ours, pixels, sigma, chosen, strict=True):
        options = {"sigma": s, "radius": 3, "mode": "mirror", "axes": (0, 1)}
        expected = scipy.ndimage.gaussian_filter(image, **options) if c else image
        np.testing.assert_allclose(view, expected, atol=2e-6)


def test_blur_is_a_tenth_of_the_side():
    assert [2 * _blur_radius(size) + 1 for size in (16, 64, 96, 224)] == [1, 7, 9, 23]


# --- the whole -----------------------------------------------------------------------------------


def test_views_are_a_function_of_the_key_and_the_image():
    images = np.repeat(noise(1, 32), 16, axis=0)
    key = jax.random.key(7)
    views, crop = jit_augment(key, jnp.asarray(images), FULL)
    assert views.shape == (16, 24, 24, 3)
    assert crop.shape == (16, 4)
    assert views.dtype == crop.dtype == jnp.float32
    assert 0 <= views.min() < views.max() <= 1
    np.testing.assert_array_equal(views, jit_augment(key, jnp.asarray(images), FULL)[0])
    # one image, sixteen draws: no two views alike, nor alike under another key
    other, _ = jit_augment(jax.random.fold_in(key, 1), jnp.asarray(images), FULL)
    flat = np.concatenate([views, other]).reshape(32, -1)
    distance = np.abs(flat[:, None] - flat[None]).mean(axis=-1)
    assert distance[~np.eye(32, dtype=bool)].min() > 1e-3
    # image i's view depends on no other image, nor on how many there are
    images[5:] = 0
    fewer, fewer_crop = jit_augment(key, jnp.asarray(images[:8]), FULL)
    np.testing.assert_allclose(fewer[:5], views[:5], atol=1e-6)
    np.testing.assert_array_equal(fewer_crop, crop[:8])


def test_a_plain_image_stays_plain():
    images = jnp.full((16, 32, 32, 3), 130, jnp.uint8)
    views, _ = jit_augment(jax.random.key(0), images, FULL)
    assert np.ptp(views, axis=(1, 2)).max() < 1e-5
    assert np.ptp(views, axis=0).min() > 0.1  # the jitter does change its brightness


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


# --- torchvision ---------------------------------------------------------------------------------


def torchvision_functional(torch):
    """torchvision's operations; its compiled part, not needed here, may not fit the torch."""
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
    ours = stack(
        _cut(jnp.asarray(images), jnp.asarray(boxes, jnp.float32), never, never, never, 24)
    )
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
    ours = stack(_jitter(planes(pixels), jnp.asarray(factors), jnp.asarray(orders), hue=True))
    for view, image, f, order in zip(ours, pixels, factors, orders, strict=True):
        theirs = torch_image(image)
        for operation in order:
            theirs = adjust[int(operation)](theirs, float(f[operation]))
        np.testing.assert_allclose(view, np.moveaxis(theirs.numpy(), 0, -1), atol=5e-5)

    grey = functional.rgb_to_grayscale(torch_image(pixels[0])).numpy()[0]
    np.testing.assert_allclose(_grey(planes(pixels[:1]))[0], grey, atol=1e-6)

    config = AugmentConfig(size=50, blur_p=1.0)
    squares = images.astype(np.float32) / 255
    ours = stack(_blur(planes(squares), keys(0, 6), config))
    for view, image, sigma in zip(
        ours, squares, np.asarray(_draw_blur(keys(0, 6), config)[0]), strict=True
    ):
        theirs = functional.gaussian_blur(torch_image(image), [5, 5], [float(sigma)] * 2)
        np.testing.assert_allclose(view, np.moveaxis(theirs.numpy(), 0, -1), atol=1e-5)
