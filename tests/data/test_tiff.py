"""TIFFs: which page and bands are the image, what is refused and why, bounds. Oracle: rasterio."""

import io
import resource
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from satmip_jax.data import tiff
from satmip_jax.data.headers import Header, read_header
from satmip_jax.data.images import ImageError, Rendering, decode, make_square
from tests.data.tiffs import header_only, write_pages, write_tiff


def scene(bands: int, height: int = 40, width: int = 56, dtype=np.uint8) -> np.ndarray:
    return np.random.default_rng(bands).integers(0, 256, (height, width, bands)).astype(dtype)


RGB = scene(3)

# --- what is read ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"interleave": "band"},
        {"BIGTIFF": "YES"},
        {"compress": "zstd"},
        {"compress": "zstd", "predictor": 2},
        {"compress": "lzw"},
        {"compress": "deflate", "interleave": "band"},
        {"compress": "packbits"},
        {"tiled": True, "blockxsize": 16, "blockysize": 16},
        {"tiled": True, "blockxsize": 16, "blockysize": 16, "BIGTIFF": "YES", "compress": "lzma"},
        {"ENDIANNESS": "BIG"},
        {"photometric": "minisblack"},
        {"blockysize": 1},
    ],
    ids=str,
)
def test_rgb_is_read_however_it_is_stored(options):
    data = write_tiff(RGB, **options)
    assert read_header(data) == Header("TIFF", 56, 40, 3)
    np.testing.assert_array_equal(decode(data), RGB)


@pytest.mark.parametrize("options", [{}, {"alpha": "no"}, {"alpha": "premultiplied"}], ids=str)
@pytest.mark.parametrize("interleave", ["pixel", "band"])
def test_the_fourth_band_does_not_change_the_colours(options, interleave):
    """GDAL marks the fourth band as alpha by default, also if it is near infrared."""
    pixels = scene(4)
    np.testing.assert_array_equal(
        decode(write_tiff(pixels, interleave=interleave, **options)), pixels[:, :, :3]
    )
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "TIFF")
    np.testing.assert_array_equal(decode(file.getvalue()), pixels[:, :, :3])


def test_grey_is_repeated_and_its_alpha_dropped():
    grey = scene(1)
    wanted = np.repeat(grey, 3, 2)
    np.testing.assert_array_equal(decode(write_tiff(grey)), wanted)
    np.testing.assert_array_equal(decode(write_tiff(255 - grey, photometric="miniswhite")), wanted)
    with_alpha = np.concatenate([grey, grey * 0], 2)
    np.testing.assert_array_equal(decode(write_tiff(with_alpha, alpha="yes")), wanted)


def test_a_palette_becomes_its_colours():
    colours = np.random.default_rng(0).integers(0, 256, (256, 3), np.uint8)
    numbers = scene(1)[:, :, 0]
    image = Image.fromarray(numbers, "L").convert("P")
    image.putpalette(colours.tobytes())
    image.frombytes(numbers.tobytes())
    file = io.BytesIO()
    image.save(file, "TIFF")
    np.testing.assert_array_equal(decode(file.getvalue()), colours[numbers])


def test_bands_that_are_marked_as_blue_green_red():
    data = write_tiff(RGB, photometric="minisblack", colours=["blue", "green", "red"])
    np.testing.assert_array_equal(decode(data), RGB[:, :, ::-1])


def test_jpeg_inside_a_tiff():
    smooth = np.asarray(Image.fromarray(scene(3, 5, 7)).resize((64, 48), Image.Resampling.BICUBIC))
    data = write_tiff(smooth, compress="jpeg", photometric="ycbcr", JPEG_QUALITY=95)
    assert np.abs(decode(data).astype(int) - smooth).mean() < 4


def test_orientation_is_ignored_as_in_jpeg():
    file = io.BytesIO()
    Image.fromarray(RGB).save(file, "TIFF", tiffinfo={274: 6})  # "rotate by 90 degrees"
    np.testing.assert_array_equal(decode(file.getvalue()), RGB)


# --- pages ----------------------------------------------------------------------------------------


def test_thumbnails_and_overviews_are_not_the_image():
    small = np.zeros((8, 12, 3), np.uint8)
    np.testing.assert_array_equal(decode(write_pages([small, RGB], {0: 1})), RGB)
    np.testing.assert_array_equal(decode(write_pages([RGB, small], {1: 1})), RGB)
    # without a mark, but much smaller
    np.testing.assert_array_equal(decode(write_pages([small, RGB])), RGB)
    data = write_tiff(RGB, overviews=[2, 4])
    assert len(list(tiff._pages(data))) == 3
    np.testing.assert_array_equal(decode(data), RGB)


def test_unclear_pages_are_refused():
    with pytest.raises(ImageError, match="TIFF of 3 pages: save one image a file, its bands in"):
        decode(write_pages([RGB[:, :, i] for i in range(3)]))
    with pytest.raises(ImageError, match="TIFF of 2 pages"):
        decode(write_pages([RGB, RGB[:30, :40]]))
    with pytest.raises(ImageError, match="TIFF with thumbnails only"):
        decode(write_pages([RGB, RGB], {0: 1, 1: 1}))
    np.testing.assert_array_equal(decode(write_pages([RGB], {0: 1})), RGB)  # no other there
    with pytest.raises(ImageError, match="TIFF of more than 256 pages"):
        decode(write_pages([RGB[:1, :1]] * 257))
    loop = bytearray(header_only())
    loop[-4:] = struct.pack("<I", 24)  # the next page is the page itself
    with pytest.raises(ImageError, match="damaged TIFF header"):
        decode(bytes(loop))


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pixels", "options", "reason"),
    [
        (scene(13), {}, r"13 bands of uint8: give --bands R,G,B \(such as --bands 4,3,2\)$"),
        (scene(2), {}, "2 bands of uint8: give --bands R,G,B"),
        (scene(3, dtype=np.uint16), {}, "3 bands of uint16: give --scale LOW,HIGH"),
        (scene(3, dtype=np.int16), {}, "3 bands of int16: give --scale LOW,HIGH"),
        (scene(3, dtype=np.int8), {}, "3 bands of int8: give --scale LOW,HIGH"),
        (scene(1, dtype=np.float32), {}, "1 band of float32: give --scale LOW,HIGH"),
        (scene(3, dtype=np.float64), {}, "3 bands of float64: give --scale"),
        (
            scene(4, dtype=np.uint16),
            {"photometric": "minisblack"},
            "4 bands of uint16: give --bands R,G,B .* and --scale LOW,HIGH .*percentile",
        ),
        (scene(1) % 2, {"nbits": 1}, "1 band of uint1: give --scale"),
        (scene(4), {"photometric": "cmyk"}, "TIFF of CMYK, not of grey or RGB"),
        (scene(1, dtype=np.complex64), {}, "TIFF of complex numbers"),
    ],
    ids=str,
)
def test_what_needs_an_option_names_it(pixels, options, reason):
    with pytest.raises(ImageError, match=reason):
        decode(write_tiff(pixels, **options))


def test_options_that_are_advised_are_allowed():
    pixels = scene(13, dtype=np.uint16) * 12
    for options in ({}, {"interleave": "band"}, {"compress": "zstd", "tiled": True}):
        shown = decode(write_tiff(pixels, **options), rendering=Rendering.parse("4,3,2", "0,3060"))
        np.testing.assert_array_equal(shown, pixels[:, :, [3, 2, 1]] // 12)
    grey = decode(write_tiff(pixels), rendering=Rendering.parse("8", "0,3060"))
    np.testing.assert_array_equal(grey, np.repeat(pixels[:, :, 7:8] // 12, 3, 2))
    bits = scene(1) % 2
    shown = decode(write_tiff(bits, nbits=1), rendering=Rendering.parse(None, "0,1"))
    np.testing.assert_array_equal(shown, np.repeat(bits * 255, 3, 2))
    with pytest.raises(ImageError, match="3 bands, but --bands 4,3,2"):
        decode(write_tiff(RGB), rendering=Rendering.parse("4,3,2", None))


def test_missing_values_are_black():
    pixels = np.array([[[0.0], [1.0], [np.nan], [-9999.0], [np.inf], [2.0]]], np.float32)
    data = write_tiff(pixels, nodata=-9999.0)
    shown = decode(data, rendering=Rendering.parse(None, "-1,1"))[0, :, 0]
    np.testing.assert_array_equal(shown, [128, 255, 0, 0, 0, 255])
    assert make_square(data, 6, rendering=Rendering.parse(None, "-1,1")).scaled_from == (0.0, 2.0)
    missing = write_tiff(pixels * np.float32(np.nan))
    with pytest.raises(ImageError, match="all values are missing"):
        decode(missing, rendering=Rendering.parse(None, "percentile"))


def test_unsupported_compression_is_named():
    with pytest.raises(ImageError, match="TIFF compression number 777 is not supported: save it"):
        decode(header_only(compression=777))
    decode(header_only())


@pytest.mark.parametrize("options", [{}, {"compress": "lzw"}, {"compress": "zstd"}], ids=str)
def test_truncated_files_are_damaged(options):
    data = write_tiff(RGB, **options)
    page = tiff.read_page(data)
    with pytest.raises(ImageError, match="damaged TIFF"):
        decode(data[: page.offset + 2000])
    with pytest.raises(ImageError, match="damaged TIFF"):
        decode(data[: page.offset + 20])


# --- bounds ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"width": 70_000}, "impossible image size 70000x4"),
        ({"width": 40_000, "height": 40_000}, "40000x40000 pixels, more than the limit"),
        ({"width": 20_000, "height": 15_000, "bits": 64}, "300,?000,?000|more than the limit of"),
        ({"bands": 5000}, "TIFF of 5,000 bands, more than the limit of 4,096"),
        ({"width": 9000, "height": 9000, "bands": 64}, "64 bands of uint8: more than the limit"),
        ({"width": 20_000, "height": 20_000, "rows": 20_000}, "with blocks of 20000x20000 pixels"),
        ({"width": 9000, "height": 9000, "rows": 1}, "damaged TIFF header"),
        ({"width": 0}, "damaged TIFF header"),
        ({"rows": 0}, "damaged TIFF header"),
        ({"bits": 0}, "damaged TIFF header"),
    ],
    ids=str,
)
def test_sizes_are_bounded_by_the_header(changes, reason, monkeypatch):
    monkeypatch.setattr(tiff, "open_dataset", None)  # GDAL must not see the file
    with pytest.raises(ImageError, match=reason):
        decode(header_only(**changes), rendering=Rendering.parse("3,2,1", "0,1"))


FILES = [
    write_tiff(RGB, compress="deflate"),
    write_tiff(scene(5, dtype=np.uint16), tiled=True, blockxsize=16, blockysize=16),
    write_tiff(RGB, BIGTIFF="YES", compress="lzw", interleave="band"),
    write_pages([RGB[:8, :8], RGB], {0: 1}),
    header_only(),
]
MAX_GROWTH = 256 << 20  # bytes; a header may claim 100 times as much


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(FILES), st.data())
def test_mutated_files_decode_or_say_why(data, draw):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    mutated = bytearray(data)
    for _ in range(draw.draw(st.integers(1, 6))):
        # near the header, where it lies
        at = draw.draw(st.integers(0, min(len(data) - 1, 400)) | st.integers(0, len(data) - 1))
        mutated[at] = draw.draw(st.sampled_from([0, 1, 255]) | st.integers(0, 255))
    cut = draw.draw(st.just(len(data)) | st.integers(0, len(data)))
    rendering = Rendering.parse(draw.draw(st.sampled_from([None, "1", "3,2,1"])), "percentile")
    try:
        pixels = decode(bytes(mutated[:cut]), max_pixels=1_000_000, rendering=rendering)
    except ImageError:
        pass
    else:
        header = read_header(bytes(mutated[:cut]))
        assert pixels.shape == (header.height, header.width, 3)
        assert pixels.dtype == np.uint8
    growth = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert growth * 1024 < MAX_GROWTH


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(tiff.MAGIC), st.binary(max_size=200))
def test_any_bytes_are_refused(magic, data):
    with pytest.raises(ImageError):
        decode(magic + data, max_pixels=1_000_000)
