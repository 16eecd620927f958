"""Image files: headers and bounds, decoding, squares. Oracles: PIL and plain numpy."""

import io
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from satmip_jax.data import images
from satmip_jax.data.images import (
    ImageError,
    crop_region,
    decode,
    decode_square,
    make_square,
    read_header,
)


def encoded(pixels: np.ndarray, format: str = "JPEG", **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format, **options)
    return file.getvalue()


def scene(width: int, height: int, seed: int = 0) -> np.ndarray:
    """A smooth image, so that JPEG keeps it."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (4, 4, 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


JPEG = encoded(scene(96, 64), quality=95)
PNG = encoded(scene(40, 30), "PNG")


def with_size(jpeg: bytes, width: int, height: int) -> bytes:
    """The JPEG with another size written into its frame header."""
    at = next(i for i in range(len(jpeg)) if jpeg[i : i + 2] in (b"\xff\xc0", b"\xff\xc2"))
    return jpeg[: at + 5] + struct.pack(">HH", height, width) + jpeg[at + 9 :]


# --- headers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize(("width", "height"), [(1, 1), (7, 300), (640, 480)])
def test_header_agrees_with_pil(format, width, height):
    data = encoded(scene(width, height), format)
    assert read_header(data) == images.Header(format, width, height, 3)


def test_header_of_progressive_grey_and_commented_jpegs():
    progressive = read_header(encoded(scene(50, 60), progressive=True))
    assert (progressive.width, progressive.height) == (50, 60)
    grey = read_header(encoded(scene(50, 60)[:, :, 0]))
    assert (grey.width, grey.height, grey.components) == (50, 60, 1)
    commented = read_header(encoded(scene(50, 60), comment=b"\xff\xc0\x00\x11\x08" * 100))
    assert (commented.width, commented.height) == (50, 60)


def test_header_is_not_that_of_the_thumbnail():
    exif = b"Exif\0\0" + encoded(scene(8, 8))  # a whole JPEG inside a segment
    header = read_header(encoded(scene(200, 100), exif=exif))
    assert (header.width, header.height) == (200, 100)


def test_real_header(real_data):
    header = read_header((real_data / "fmow" / "airport_0_0_msrgb.jpg").read_bytes())
    assert header == images.Header("JPEG", 2050, 1578, 3)


def test_largest_image_of_fmow_is_allowed_and_bombs_are_not():
    header = read_header(with_size(JPEG, 16288, 16291))
    assert (header.width, header.height) == (16288, 16291)
    with pytest.raises(ImageError, match="60000x60000 pixels, more than the limit of 400,000,000"):
        decode(with_size(JPEG, 60000, 60000))
    with pytest.raises(ImageError, match="96x64 pixels, more than the limit of 6,143"):
        decode(JPEG, max_pixels=96 * 64 - 1)
    decode(JPEG, max_pixels=96 * 64)


def test_png_bomb_is_refused_by_its_header():
    ihdr = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    import zlib

    chunk = b"IHDR" + ihdr
    data = PNG[:8] + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk)) + PNG[33:]
    with pytest.raises(ImageError, match="50000x50000 pixels, more than"):
        decode(data)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"GIF89a" + bytes(50), "not a JPEG, PNG, TIFF, WebP or JPEG 2000"),
        (b"\xff\xd8", "damaged JPEG header"),
        (b"\xff\xd8" + b"\xff\xe0\x00\x00" * 10, "damaged JPEG header"),
        (JPEG[:3] + bytes(100), "damaged JPEG header"),
        (with_size(JPEG, 0, 64), "impossible image size 0x64"),
        (PNG[:20], "damaged PNG header"),
        (b"II*\0" + bytes(4), "damaged TIFF header"),
    ],
)
def test_bad_headers_are_reported(data, reason):
    with pytest.raises(ImageError, match=reason):
        read_header(data)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([JPEG, PNG]), st.data())
def test_damaged_files_are_decoded_or_refused_with_a_reason(data, draw):
    damaged = bytearray(data)
    for _ in range(draw.draw(st.integers(1, 4))):
        damaged[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    damaged = bytes(damaged[: draw.draw(st.integers(0, len(data)))])
    try:
        pixels = decode(damaged, max_pixels=1_000_000)
    except ImageError:
        return
    header = read_header(damaged)
    assert pixels.shape == (header.height, header.width, 3)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([b"", b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"II*\0", b"RIFF"]), st.binary())
def test_any_bytes_are_decoded_or_refused_with_a_reason(magic, data):
    with pytest.raises(ImageError):
        decode(magic + data, max_pixels=1_000_000)


# --- decoding -------------------------------------------------------------------------------------


def test_truncated_files_are_refused():
    for data in (JPEG, PNG):
        decode(data)
        with pytest.raises(ImageError, match="truncated"):
            decode(data[: len(data) * 2 // 3])


def test_channels_are_rgb():
    red = np.zeros((4, 4, 3), np.uint8) + np.array([250, 3, 1], np.uint8)
    np.testing.assert_array_equal(decode(encoded(red, "PNG")), red)


def test_grey_and_alpha_become_rgb():
    grey = scene(9, 5)[:, :, 0]
    np.testing.assert_array_equal(decode(encoded(grey, "PNG")), np.stack([grey] * 3, -1))
    rgb = scene(9, 5)
    rgba = np.concatenate([rgb, np.full((5, 9, 1), 7, np.uint8)], -1)
    np.testing.assert_array_equal(decode(encoded(rgba, "PNG")), rgb)


def test_orientation_is_ignored_because_boxes_count_stored_pixels():
    exif = Image.Exif()
    exif[0x0112] = 6  # "rotate by 90 degrees"
    data = encoded(scene(60, 20), exif=exif.tobytes())
    assert decode(data).shape == (20, 60, 3)
    np.testing.assert_array_equal(decode(data), decode(encoded(scene(60, 20))))


@pytest.mark.parametrize("reduce", [1, 2, 4, 8])
def test_reduced_decoding_rounds_sizes_up(reduce):
    data = encoded(scene(101, 67))
    assert decode(data, reduce=reduce).shape == (-(-67 // reduce), -(-101 // reduce), 3)


def test_decode_square_fills_a_row_of_a_batch():
    data = encoded(scene(32, 32))
    batch = np.zeros((3, 32, 32, 3), np.uint8)
    decode_square(data, 32, out=batch[1])
    np.testing.assert_array_equal(batch[1], decode(data))
    assert not batch[0].any()
    assert not batch[2].any()
    with pytest.raises(ImageError, match="x/1: 96x64 pixels instead of 32x32"):
        decode_square(JPEG, 32, name="x/1")
    with pytest.raises(ValueError, match="contiguous"):
        decode_square(data, 32, out=batch[1, :, ::-1])


# --- regions --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("box", "size", "ratio", "region"),
    [
        (None, (977, 663), 1.5, (0, 0, 977, 663)),
        # the fountain: longer side 72, so 108 around (502, 329)
        ((466, 299, 72, 60), (977, 663), 1.5, (448, 275, 108, 108)),
        # sticks out at the left and the top: shifted, not cut
        ((0, 0, 100, 100), (1000, 1000), 2.0, (0, 0, 200, 200)),
        # and at the right and the bottom
        ((900, 950, 100, 50), (1000, 1000), 2.0, (800, 800, 200, 200)),
        # context is given up before the square is: 768 * 1.5 > 1024
        ((128, 128, 768, 768), (1024, 1024), 1.5, (0, 0, 1024, 1024)),
        ((300, 0, 90, 90), (1000, 100), 2.0, (295, 0, 100, 100)),
        # the box itself is longer than the image is high
        ((100, 10, 400, 50), (1000, 100), 2.0, (100, 0, 400, 100)),
        # partly outside: its visible part counts
        ((-50, 20, 100, 50), (1000, 1000), 1.0, (0, 20, 50, 50)),
    ],
)
def test_regions_by_hand(box, size, ratio, region):
    assert crop_region(box, *size, ratio) == region


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ((10, 10, 1.9, 50), "box under 2 pixels"),
        ((10, 10, 50, -3), "box under 2 pixels"),
        ((100, 0, 50, 50), "box outside the image"),
        ((-49, 0, 50, 50), "box outside the image"),
        ((float("nan"), 0, 50, 50), "box is not finite"),
        ((0, 0, float("inf"), 50), "box is not finite"),
    ],
)
def test_bad_boxes_are_reported(box, reason):
    with pytest.raises(ImageError, match=reason):
        crop_region(box, 100, 100, 1.5)


coordinate = st.floats(-300, 600)


@given(
    st.tuples(coordinate, coordinate, coordinate, coordinate),
    st.integers(2, 500),
    st.integers(2, 500),
    st.floats(1, 4),
)
def test_regions_contain_the_box_and_are_inside_the_image(box, width, height, ratio):
    try:
        bx, by, bw, bh = images.clip_box(box, width, height)
    except ImageError:
        return
    x, y, w, h = crop_region(box, width, height, ratio)
    assert all(v == int(v) for v in (x, y, w, h))
    assert 0 <= x <= x + w <= width
    assert 0 <= y <= y + h <= height
    # whole pixels: half a pixel of the box may stick out
    assert x <= bx + 0.51
    assert y <= by + 0.51
    assert x + w >= bx + bw - 0.51
    assert y + h >= by + bh - 0.51
    if max(bw, bh) <= min(width, height) - 1:
        assert w == h


# --- squares --------------------------------------------------------------------------------------


def test_a_jpeg_of_the_right_size_keeps_its_bytes():
    data = encoded(scene(64, 64), quality=40)
    square = make_square(data, 64)
    assert square.data is data
    assert square.region == (0, 0, 64, 64)
    np.testing.assert_array_equal(square.pixels, decode(data))


def test_others_of_the_right_size_are_encoded():
    for data in (encoded(scene(64, 64), "PNG"), encoded(scene(64, 64)[:, :, 0])):
        square = make_square(data, 64)
        assert read_header(square.data) == images.Header("JPEG", 64, 64, 3)
        assert np.abs(decode(square.data).astype(int) - decode(data)).mean() < 4


def test_shrinking_averages():
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (48, 96, 3), np.uint8)  # linear interpolation would alias
    square = make_square(encoded(noise, "PNG"), 16, box=(30, 3, 45, 40))
    x, y, w, h = map(int, square.region)
    assert (w, h) == (45, 45)
    cut = noise[y : y + h, x : x + w].astype(float)
    # average over 45/16 pixels: repeat each pixel 16 times, then mean over blocks of 45
    exact = np.repeat(np.repeat(cut, 16, 0), 16, 1).reshape(16, 45, 16, 45, 3).mean((1, 3))
    assert np.abs(square.pixels - exact).max() <= 1


def test_axes_may_shrink_and_grow():
    columns = np.random.default_rng(0).integers(0, 256, (1, 64, 3), np.uint8)
    image = np.repeat(columns, 8, 0)  # 64 wide, 8 high; alike along y
    square = make_square(encoded(image, "PNG"), 16)
    assert square.region == (0, 0, 64, 8)
    exact = columns.reshape(1, 16, 4, 3).mean(2)
    assert np.abs(square.pixels - exact).max() <= 1


@pytest.mark.parametrize("seed", range(4))
def test_reduced_decoding_shows_the_region_it_reports(seed):
    """Pixel values are coordinates, so a shifted crop would be visible."""
    width, height = 1500, 1201
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([x * 255 / width, y * 255 / height, 0 * x], -1).astype(np.uint8)
    rng = np.random.default_rng(seed)
    box = (*rng.uniform(0, 500, 2), *rng.uniform(300, 690, 2))
    square = make_square(encoded(pixels, quality=100, subsampling=0), 20, box=box)
    rx, ry, rw, rh = square.region
    assert rx + rw <= width
    assert ry + rh <= height
    assert images._reduction(read_header(JPEG), square.region, 20) >= 4  # the case in question
    wanted = crop_region(box, width, height, 1.0)
    assert max(abs(a - b) for a, b in zip(square.region, wanted, strict=True)) <= 8
    exact = pixels[int(ry) : int(ry + rh), int(rx) : int(rx + rw)].astype(float)
    for channel, size in ((0, width), (1, height)):
        mean = square.pixels[..., channel].mean()
        assert abs(mean - exact[..., channel].mean()) * size / 255 < 4  # source pixels


def test_reduced_decoding_is_close_to_full(monkeypatch):
    data = encoded(scene(803, 611, seed=3))
    reduced = make_square(data, 32).pixels
    monkeypatch.setattr(images, "_reduction", lambda *_: 1)
    full = make_square(data, 32).pixels
    assert 0 < np.abs(reduced.astype(int) - full).mean() < 1.5


def test_real_image(real_data):
    data = (real_data / "fmow" / "airport_0_0_msrgb.jpg").read_bytes()
    square = make_square(data, 224, box=(500, 400, 600, 500), context_ratio=1.5)
    assert square.source_size == (2050, 1578)
    assert square.region[2] == square.region[3]
    assert abs(square.region[2] - 900) <= 4
    reference = Image.open(io.BytesIO(data)).convert("RGB")
    x, y, w, h = square.region
    reference = reference.resize((224, 224), Image.Resampling.BOX, box=(x, y, x + w, y + h))
    assert np.abs(square.pixels.astype(int) - np.asarray(reference)).mean() < 4


def test_reduced_decoding_leaves_out_incomplete_last_pixels():
    """803 = 100 x 8 + 3: the 101st column of the reduced grid covers 3 source pixels only."""
    square = make_square(encoded(scene(803, 611)), 32)
    assert square.region == (0, 0, 800, 608)
    assert square.source_size == (803, 611)
    square = make_square(encoded(scene(803, 611)), 32, box=(203, 11, 600, 600))
    assert square.region == (200, 8, 600, 600)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 255), st.integers(0, 255))
def test_sums_of_pixels_are_exact(height, width, low, high):
    rng = np.random.default_rng(height * width)
    low, high = min(low, high), max(low, high) + 1
    for step in (1, -1):  # as it lies in memory, and as decoded: backwards
        pixels = rng.integers(low, high, (height, width, 3), np.uint8)[:, :, ::step]
        wide = pixels.reshape(-1, 3).astype(np.int64)
        expected = wide.sum(0).tolist(), (wide**2).sum(0).tolist()
        assert images.channel_sums(pixels) == expected


def test_sums_of_the_largest_squares_are_exact():
    rng = np.random.default_rng(0)
    for low in (0, 254, 255):
        pixels = rng.integers(low, 256, (4096, 4096, 3), np.uint8)
        sums = images.channel_sums(pixels)
        for channel in range(3):  # by another way: how often each value occurs
            counts = np.bincount(pixels[:, :, channel].ravel(), minlength=256)
            values = np.arange(256)
            assert [part[channel] for part in sums] == [counts @ values, counts @ values**2]


def test_too_little_memory_is_not_called_damage(monkeypatch):
    cv2 = images._cv2()
    error = cv2.error("Failed to allocate 3 bytes")
    error.code = cv2.Error.StsNoMem

    def fail(*_):
        raise error

    data = encoded(np.zeros((8, 8, 3), np.uint8))
    monkeypatch.setattr(cv2, "imdecode", fail)
    with pytest.raises(MemoryError, match="no memory for 8x8 pixels of JPEG"):
        images.decode(data)
