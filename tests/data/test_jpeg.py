"""JPEGs that end early, in spite of an end marker."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from satmip_jax.data import jpeg
from satmip_jax.data.images import ImageError, decode, decode_square, read_header
from tests.data.test_images import scene

KINDS = [
    {},
    {"quality": 95},
    {"subsampling": 0},
    {"subsampling": 1},
    {"progressive": True},
    {"restart_marker_blocks": 2},
    {"restart_marker_rows": 1},
    {"mode": "L"},
    {"mode": "L", "progressive": True},
    {"mode": "CMYK"},
]
END = b"\xff\xd9"


def noisy(width: int, height: int, mode: str = "RGB", **options) -> bytes:
    noise = np.random.default_rng(0).integers(-9, 10, (height, width, 3))
    pixels = (scene(width, height) + noise).clip(0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, "JPEG", **options)
    return file.getvalue()


FILES = [noisy(width, height, **kind) for kind in KINDS for width, height in ((64, 64), (97, 130))]


@pytest.mark.parametrize("data", FILES)
@pytest.mark.parametrize("reduce", [1, 2, 4, 8])
def test_half_a_file_with_an_end_marker_is_truncated(data, reduce):
    decode(data, reduce=reduce)
    decode(data + b"trailing bytes", reduce=reduce)
    start = data.index(b"\xff\xda")
    with pytest.raises(ImageError, match=r"(truncated|damaged) JPEG"):
        decode(data[: (start + len(data)) // 2] + END, reduce=reduce)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(FILES), st.floats(0, 0.9))
def test_any_cut_is_noticed(data, share):
    start = data.index(b"\xff\xda") + 14
    cut = start + int(share * (len(data) - start))
    with pytest.raises(ImageError):
        decode(data[:cut] + END)


@pytest.mark.parametrize("width", [64, 65, 80])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_images_that_end_in_grey_are_complete(width, mode, capfd):
    pixels = scene(width, 64).copy()
    pixels[:, 30:] = 128  # as blocks that are missing look
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, "JPEG", quality=95)
    data = file.getvalue()
    assert jpeg._is_grey(decode(data)[-1, -1])
    if width == 64:
        decode_square(data, 64)
    assert not capfd.readouterr().err  # libjpeg prints warnings
    cut = data[: data.index(b"\xff\xda") + 40] + END
    with pytest.raises(ImageError, match="truncated JPEG"):
        decode(cut)


def test_only_ends_in_grey_are_decoded_again(monkeypatch):
    monkeypatch.setattr(jpeg, "_decode", None)
    for data in FILES[:6]:
        decode(data)


def test_jpegs_of_12_bits_are_named():
    data = bytearray(FILES[0])
    data[read_header(FILES[0]).frame + 3] = 12
    with pytest.raises(ImageError, match="JPEG of 12 bits, not 8: convert it to PNG or TIFF"):
        decode(bytes(data))
