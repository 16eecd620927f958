"""JPEG 2000: pixels, tiles and coordinates; damaged files, and those made to take much memory."""

import struct

import numpy as np
import pytest
import rasterio
import rasterio.io
from hypothesis import given, settings
from hypothesis import strategies as st

from satmip_jax.data import jp2
from satmip_jax.data.image_errors import ImageError
from satmip_jax.data.images import Rendering, decode, read_header
from satmip_jax.data.tiff_tiles import Window
from satmip_jax.metadata.record import Problems
from satmip_jax.sources.geotiff import GeoTIFFs
from tests.sources.geotiff_files import AFFINE, picture

SCALE = Rendering(scale=(0, 4095))


def make(values, codec="JP2", **options):
    """A lossless file in UTM zone 33 N."""
    bands, height, width = values.shape
    profile = {"count": bands, "height": height, "width": width, "dtype": values.dtype}
    profile |= {"crs": "EPSG:32633", "transform": AFFINE(10, 0, 500_000, 0, -10, 5_000_000)}
    with rasterio.io.MemoryFile(ext=".jp2") as file:
        options = {"CODEC": codec, "QUALITY": 100, "REVERSIBLE": "YES"} | options
        with file.open(driver="JP2OpenJPEG", **profile, **options) as image:
            image.write(values)
        return bytes(file.getbuffer())


@pytest.fixture(scope="module")
def sound():
    return [
        make(picture(96, 64)),
        make(picture(96, 64), codec="J2K"),
        make(picture(160, 144), blockxsize=64, blockysize=64),
        make(picture(96, 64), PRECINCTS="{64,64},{32,32}"),
    ]


def test_pixels_and_headers(sound):
    for data, shape in zip(sound, [(96, 64), (96, 64), (160, 144), (96, 64)], strict=True):
        header = read_header(data)
        assert (header.format, header.width, header.height) == ("JPEG 2000", *shape)
        np.testing.assert_array_equal(decode(data), picture(*shape).transpose(1, 2, 0))
    assert jp2.read_page(sound[2]).block == (64, 64)


def test_12_bits_are_scaled_by_the_stated_rule_only():
    values = picture(50, 40, dtype="uint16")
    data = make(values, NBITS="12")
    with pytest.raises(ImageError, match="3 bands of uint12: give --scale"):
        decode(data)
    expected = np.rint(values.astype(float) * (255 / 4095)).astype(np.uint8)
    np.testing.assert_array_equal(decode(data, rendering=SCALE), expected.transpose(1, 2, 0))


def test_tiles_and_coordinates(tmp_path, sound):
    (tmp_path / "a.jp2").write_bytes(sound[2])
    (tmp_path / "a.j2w").write_text("1\n0\n0\n-1\n7\n7\n")  # another place, which is not read
    source = GeoTIFFs([tmp_path], tile=64, stride=48)
    refs = source.refs()
    assert len(refs) == 3 * 3
    example = source.read(refs[4], Problems())
    window = source.window_of(refs[4])
    assert window == Window(48, 48, 64, 64)
    part = picture(160, 144)[:, 48:112, 48:112]
    np.testing.assert_array_equal(decode(example.image), part.transpose(1, 2, 0))
    assert example.metadata.values["gsd"] == (10.0, 10.0)
    assert example.metadata.values["utm_zone"] == "33T"


def marker(data, code):
    return data.index(struct.pack(">H", code), data.index(b"\xff\x4f"))


def edit(data, offset, content):
    return data[:offset] + content + data[offset + len(content) :]


def test_files_made_to_take_memory_are_refused_before_they_are_decoded(sound, monkeypatch):
    monkeypatch.setattr(rasterio, "open", None)  # GDAL sees none of them
    siz, cod = marker(sound[0], 0xFF51), marker(sound[0], 0xFF52)
    precinct = marker(sound[3], 0xFF52)
    sides = (40_000, 40_000, 0, 0, 40_000, 40_000)
    large = struct.pack(">8I", 19_000, 19_000, 0, 0, 19_000, 19_000, 0, 0)
    tiny = sound[3]
    cases = [
        (edit(sound[0], siz + 6, struct.pack(">6I", *sides)), "pixels, more than"),
        (edit(sound[0], siz + 6, struct.pack(">6I", 10**4, 10**4, 0, 0, 8, 8)), "tiles, more than"),
        (edit(sound[0], cod + 6, b"\xff\xff"), None),  # many layers of a small image
        (edit(edit(sound[0], siz + 6, large), cod + 6, b"\xff\xff"), None),
        (edit(edit(tiny, marker(tiny, 0xFF51) + 6, large), precinct + 14, b"\0\0"), "too small"),
        (edit(sound[0], siz + 42, b"\x02\x01"), "different types or sizes"),
        (edit(sound[0], siz + 40, b"\x1f\x01\x01" * 3), "32 bits, more than 16"),
    ]
    for data, message in cases:
        if message is None:
            jp2.read_page(data)  # within the bounds
            continue
        with pytest.raises(ImageError, match=message):
            read_header(data)


def test_headers_are_those_of_gdal():
    values = picture(96, 64, dtype="uint16")
    for dtype, nbits in (("int16", 16), ("uint16", 16), ("uint8", 8)):
        data = make(values.astype(dtype), NBITS=nbits, blockxsize=64, blockysize=32)
        page = jp2.read_page(data)
        with rasterio.io.MemoryFile(data) as file, file.open() as image:
            assert (page.dtype, page.bands) == (image.dtypes[0], image.count)
            assert page.block == image.block_shapes[0][::-1] == (64, 32)


def test_tiles_that_override_the_main_header_are_refused(sound):
    """What OpenJPEG allocates for them is not what was bounded."""
    data = sound[2]
    tile, coding = marker(data, 0xFF90), marker(data, 0xFF52)
    (size,) = struct.unpack_from(">H", data, coding + 2)
    segment = data[coding : coding + 2 + size]
    (length,) = struct.unpack_from(">I", data, tile + 6)
    start = data.index(b"\xff\x4f\xff\x51")
    codestream = edit(data, tile + 6, struct.pack(">I", length + len(segment)))[start:]
    header = tile + 12 - start
    with pytest.raises(ImageError, match="tiles are coded differently"):
        read_header(codestream[:header] + segment + codestream[header:])
    comment = b"\xff\x64" + segment[2:]  # the same bytes as a comment do no harm
    assert read_header(codestream[:header] + comment + codestream[header:]).width == 160


@pytest.mark.parametrize("box", [b"pclr", b"cmap", b"free"])
def test_palettes_are_not_taken_for_grey(sound, box):
    data = sound[0]
    place = data.index(b"jp2h") - 4
    (length,) = struct.unpack_from(">I", data, place)
    inserted = struct.pack(">I4s8x", 16, box)
    longer = edit(data, place, struct.pack(">I", length + len(inserted)))
    changed = longer[: place + length] + inserted + longer[place + length :]
    if box == b"free":
        assert read_header(changed).width == 96
        return
    with pytest.raises(ImageError, match="with a palette"):
        read_header(changed)


def test_truncated_files_are_told(sound):
    for data in sound:
        for share in (0.05, 0.3, 0.7, 0.99):
            with pytest.raises(ImageError, match=r"JPEG 2000|not a JPEG"):
                decode(data[: int(len(data) * share)])


@settings(max_examples=120, deadline=None)
@given(choice=st.data())
def test_any_damage_is_an_error_or_an_image(sound, choice):
    data = bytearray(choice.draw(st.sampled_from(sound)))
    header = data.index(b"\xff\x93")
    for _ in range(choice.draw(st.integers(1, 3))):
        end = header if choice.draw(st.booleans()) else len(data)
        data[choice.draw(st.integers(0, end - 1))] = choice.draw(st.integers(0, 255))
    try:
        image = decode(bytes(data), rendering=SCALE)
    except ImageError:
        return
    assert image.shape[2] == 3
