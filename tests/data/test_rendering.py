"""Bands and scales: options, the values they give, and formats other than TIFF."""

import io

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from satmip_jax.data.images import ImageError, decode, encode_png, make_square
from satmip_jax.data.rendering import Rendering, Values, to_uint8
from tests.data.test_images import encoded, scene

RGB = scene(40, 24)
DEEP = np.random.default_rng(0).integers(0, 3061, (24, 40, 3)).astype(np.uint16)


def png16(pixels: np.ndarray) -> bytes:
    """Return a 16-bit PNG of grey, BGR or BGRA."""
    return cv2.imencode(".png", pixels)[1].tobytes()


# --- options --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bands", "scale", "message"),
    [
        ("4,3", None, "--bands 4,3: give three band numbers from 1"),
        ("0,1,2", None, "--bands 0,1,2: give three"),
        ("red", None, "--bands 'red': give three"),
        ("", None, "--bands '': give three"),
        (None, "3000", "--scale '3000': give LOW,HIGH"),
        (None, "auto", "--scale 'auto': give LOW,HIGH, .*or percentile"),
        (None, "5,5", "--scale 5,5: LOW must be below HIGH"),
        (None, "nan,5", "--scale nan,5"),
        (None, "0,inf", "--scale 0,inf"),
        (None, "0,1e-320", "--scale 0,"),
    ],
)
def test_wrong_options_are_named(bands, scale, message):
    with pytest.raises(ImageError, match=message):
        Rendering.parse(bands, scale)


def test_only_given_options_are_kept():
    assert Rendering.parse(None, None).to_json() == {}
    assert Rendering.parse("4,3,2", "-1,2.5").to_json() == {"bands": [4, 3, 2], "scale": [-1, 2.5]}
    assert Rendering.parse("1", "percentile").to_json() == {"bands": [1], "scale": "percentile"}


# --- PNG, JPEG, WebP ------------------------------------------------------------------------------


def test_16_bits_need_a_scale():
    for pixels, bands in ((DEEP, "3 bands"), (DEEP[:, :, 0], "1 band")):
        with pytest.raises(ImageError, match=f"{bands} of uint16: give --scale LOW,HIGH"):
            decode(png16(pixels))
        with pytest.raises(ImageError, match=f"{bands} of uint16"):
            make_square(png16(pixels), 8)
    scaled = Rendering.parse(None, "0,3060")
    exact = np.rint(DEEP / 12).astype(np.uint8)
    np.testing.assert_array_equal(decode(png16(DEEP), rendering=scaled)[:, :, ::-1], exact)
    grey = decode(png16(DEEP[:, :, 0]), rendering=scaled)
    np.testing.assert_array_equal(grey, np.repeat(exact[:, :, :1], 3, 2))
    with_alpha = np.concatenate([DEEP, DEEP[:, :, :1] // 2], 2)
    np.testing.assert_array_equal(decode(png16(with_alpha), rendering=scaled)[:, :, ::-1], exact)
    with pytest.raises(ImageError, match="pixels of 16 bits, more than the limit of 900"):
        decode(png16(DEEP), max_pixels=1800, rendering=scaled)


@pytest.mark.parametrize("format", ["PNG", "WEBP", "JPEG"])
def test_bands_of_other_formats(format):
    options = {"lossless": True} if format == "WEBP" else {}
    data = encoded(RGB, format, **options)
    swapped = decode(data, rendering=Rendering.parse("3,1,1", None))
    np.testing.assert_array_equal(swapped, decode(data)[:, :, [2, 0, 0]])
    with pytest.raises(
        ImageError,
        match="3 bands, but --bands 4,3,2: leave --bands out, or choose from bands 1 to 3",
    ):
        decode(data, rendering=Rendering.parse("4,3,2", None))
    grey = encoded(RGB[:, :, 0], format if format != "WEBP" else "PNG")
    np.testing.assert_array_equal(decode(grey, rendering=Rendering.parse("1", None)), decode(grey))
    with pytest.raises(
        ImageError, match="1 band, but --bands 1,2,3: leave --bands out, or give --b"
    ):
        decode(grey, rendering=Rendering.parse("1,2,3", None))


def test_alpha_is_a_band_only_on_request():
    rgba = np.concatenate([RGB, RGB[:, :, :1] // 3], 2)
    np.testing.assert_array_equal(decode(encoded(rgba, "PNG")), RGB)
    shown = decode(encoded(rgba, "PNG"), rendering=Rendering.parse("4,2,1", None))
    np.testing.assert_array_equal(shown, rgba[:, :, [3, 1, 0]])


def test_colours_of_a_palette():
    file = io.BytesIO()
    palette = Image.fromarray(RGB).quantize(16)
    palette.save(file, "PNG")
    exact = np.asarray(palette.convert("RGB"))
    np.testing.assert_array_equal(decode(file.getvalue()), exact)
    shown = decode(file.getvalue(), rendering=Rendering.parse("3,2,1", None))
    np.testing.assert_array_equal(shown, exact[:, :, ::-1])


def test_8_bits_are_not_scaled_and_chosen_bands_not_stored_verbatim():
    data = encoded(RGB[:, :24])
    scaled = make_square(data, 24, rendering=Rendering.parse(None, "0,10"))
    assert scaled.data is data
    assert scaled.scaled_from is None
    assert make_square(data, 24, rendering=Rendering.parse("3,2,1", None)).data is not data


# --- values ---------------------------------------------------------------------------------------


@given(st.integers(-1000, 1000), st.integers(1, 1000), st.booleans())
def test_scaling_is_linear_and_ends_in_the_nearest(low, width, inverted):
    array = np.arange(-2000, 3001).reshape(-1, 1).astype(np.int16)
    scaled, span = to_uint8(Values(array, missing=-7, inverted=inverted), low, low + width)
    valid = array[:, 0] != -7
    exact = np.clip((array[:, 0].astype(float) - low) / width, 0, 1) * 255
    exact = 255 - exact if inverted else exact
    assert np.abs(scaled[valid, 0] - exact[valid]).max() <= 0.5 + 1e-9
    assert not scaled[~valid].any()
    assert span == (-2000, 3000)


def test_percentiles_are_of_the_image_and_leave_out_missing_values():
    array = np.repeat(np.arange(101.0).reshape(101, 1, 1), 3, 2)
    array[:, :, 0] += 1e-9  # the bands are scaled together
    rendering = Rendering.parse(None, "percentile")
    low, high = rendering.limits(Values(array))
    assert (low, high) == pytest.approx((2, 98), abs=0.2)
    missing = np.concatenate([array, np.full_like(array, -9999), array * np.nan])
    assert rendering.limits(Values(missing, missing=-9999)) == (low, high)
    with pytest.raises(ImageError, match="nearly all values are 5: give --scale LOW,HIGH"):
        rendering.limits(Values(array * 0 + 5))
    big = np.arange(3_000_000.0).reshape(1000, 1000, 3)  # of a sample
    assert rendering.limits(Values(big)) == pytest.approx((60_000, 2_940_000), rel=0.01)


def test_percentiles_of_the_image_scale_its_regions_alike():
    ramp = np.repeat(np.arange(0, 30_000, 100, dtype=np.uint16).reshape(1, 300), 300, 0)
    rendering = Rendering.parse(None, "percentile")
    whole = decode(png16(ramp), rendering=rendering)
    square = make_square(png16(ramp), 50, box=(100, 100, 50, 50), rendering=rendering)
    np.testing.assert_array_equal(square.pixels, whole[100:150, 100:150])
    assert square.scaled_from == (10_000, 14_900)


def test_encoded_arrays_are_unchanged():
    np.testing.assert_array_equal(decode(encode_png(RGB)), RGB)
