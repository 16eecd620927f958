"""GeoTIFFs that are damaged or made to harm: counted and named, never a traceback."""

import os
import struct
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from satmip_jax.data.image_errors import ImageError
from satmip_jax.data.tiff_tiles import open_tiff, tile_windows
from satmip_jax.metadata.record import Problems
from satmip_jax.sources.base import UnreadableExample
from satmip_jax.sources.geotiff import GeoTIFFs
from tests.sources.geotiff_files import AFFINE, geotiff, picture

TAGS = {"IMD": {"IMAGE_1.satId": "WV02", "IMAGE_1.cloudCover": "0.5"}, None: {"a": "b"}}


@cache
def intact() -> bytes:
    return geotiff(picture(48, 32), TAGS, nodata=0, tiled=True, blockxsize=16, blockysize=16)


def read_all(folder, **options):
    """Number of examples read and rejected; any other error is one of the reader."""
    source = GeoTIFFs([folder], **options)
    read = rejected = 0
    for ref in source.refs():
        try:
            source.read(ref, Problems())
            read += 1
        except UnreadableExample:
            rejected += 1
    return read, rejected, source.skipped


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tifs")
    (folder / "good.tif").write_bytes(intact())
    return folder


@settings(deadline=None, max_examples=60)
@given(
    changes=st.lists(st.tuples(st.integers(0, 10**6), st.binary(min_size=1, max_size=8))),
    end=st.integers(0, 10**6),
    tile=st.sampled_from([0, 16]),
)
def test_damaged_files_never_end_the_others(folder, changes, end, tile):
    data = bytearray(intact())
    for position, part in changes:
        at = position % len(data)
        data[at : at + len(part)] = part
    if end % 3 == 0:
        del data[end % len(data) :]
    (folder / "bad.tif").write_bytes(data)
    read, rejected, skipped = read_all(folder, tile=tile)
    count = 6 if tile else 1
    assert read >= count  # those of good.tif
    assert tile or read + rejected == 2
    assert all(name.startswith(("file that", "tile with")) for name in skipped)


@settings(deadline=None, max_examples=60)
@given(
    texts=st.dictionaries(
        st.sampled_from(
            [
                "cloudCover",
                "IMAGE_1.satId",
                "meanSunEl",
                "TLCTime",
                "gsd",
                "timestamp",
                "location",
                "DATE_ACQUIRED",
                "SCENE_CENTER_TIME",
                "TIFFTAG_IMAGEDESCRIPTION",
            ]
        ),
        st.one_of(
            st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=80),
            st.sampled_from(["nan", "inf", "1e999", ",", '{"gsd": [1]}', '{"a":' * 9000, "[1]"]),
        ),
    ),
    numbers=st.lists(
        st.one_of(st.floats(-1e9, 1e9), st.sampled_from([0.0, 1e300, -1e300])),
        min_size=6,
        max_size=6,
    ),
    epsg=st.sampled_from([4326, 32633, 3857, 3031, 4978]),
)
def test_any_tags_and_coordinates_are_read_or_missing(tmp_path_factory, texts, numbers, epsg):
    folder = tmp_path_factory.mktemp("tags")
    texts = {k: v for k, v in texts.items() if k.isascii()}
    transform = AFFINE(*numbers)
    geotiff(
        picture(8, 8), {"IMD": texts}, folder / "a.tif", crs=f"EPSG:{epsg}", transform=transform
    )
    assert read_all(folder)[:2] == (1, 0)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"\xff\xd8\xff\xe0 a JPEG", "not a TIFF or JPEG 2000 file"),
        (b"II*\0\x08\0\0\0", "damaged TIFF header"),
        (b"II*\0" + struct.pack("<IHHHII", 8, 1, 256, 3, 1, 9) + bytes(4), "damaged TIFF header"),
    ],
)
def test_files_that_are_no_tiffs(tmp_path, data, reason):
    (tmp_path / "bad.tif").write_bytes(data)
    (tmp_path / "good.tif").write_bytes(intact())
    _, _, skipped = read_all(tmp_path, tile=16)
    assert skipped == {f"file that cannot be cut into tiles: {reason}": 1}


def test_a_named_pipe_and_links_are_left_out(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/good.tif").write_bytes(intact())
    (tmp_path / "out.tif").write_bytes(intact())
    (tmp_path / "in/link.tif").symlink_to(tmp_path / "out.tif")
    os.mkfifo(tmp_path / "in/pipe.tif")
    read, rejected, skipped = read_all(tmp_path / "in", tile=16)
    assert (read, rejected) == (6, 0)
    assert skipped == {
        "file that cannot be cut into tiles: not a regular file": 1,
        "symbolic link that leads out of its folder": 1,
    }


def test_a_header_of_impossible_size_allocates_nothing(tmp_path):
    data = bytearray(geotiff(picture(8, 8)))
    at = data.index(struct.pack("<HHI", 256, 3, 1)) + 4  # the width, then the height
    for entry in (at, at + 12):
        data[entry - 2 : entry + 8] = struct.pack("<HII", 4, 1, 2**32 - 1)
    with pytest.raises(ImageError), open_tiff(bytes(data)):
        pass
    with pytest.raises(ImageError, match="more than 1,000,000 tiles"):
        tile_windows(2**31, 2**31, 224, 224)


def test_a_file_that_shrinks_after_it_was_listed_is_rejected(tmp_path):
    geotiff(picture(48, 32), None, tmp_path / "a.tif")
    source = GeoTIFFs([tmp_path], tile=16)
    last = source.refs()[-1]
    geotiff(picture(32, 32), None, tmp_path / "a.tif")
    with pytest.raises(UnreadableExample, match="changed while it was read"):
        source.read(last, Problems())


@pytest.mark.parametrize("folder_name", ["a#b", "a?b=c", "vsizip", "ä %20 b", "GTIFF_DIR:off:8:x"])
def test_names_of_files_are_never_parsed_as_addresses(tmp_path, folder_name):
    folder = tmp_path / folder_name
    geotiff(picture(16, 16), None, folder / "http:x!y.tif")
    assert read_all(folder, tile=16)[:2] == (1, 0)


def test_nothing_beside_a_file_is_read(tmp_path):
    geotiff(picture(16, 16), None, tmp_path / "a.tif", crs=None, transform=None)
    (tmp_path / "a.tfw").write_text("10\n0\n0\n-10\n500000\n5000000\n")
    (tmp_path / "a.tif.aux.xml").write_text(
        '<PAMDataset><SRS>EPSG:32633</SRS><Metadata><MDI key="gsd">3</MDI></Metadata></PAMDataset>'
    )
    source = GeoTIFFs([tmp_path])
    (ref,) = source.refs()
    assert not source.read(ref, Problems()).metadata.values


def test_grey_inverted_and_palette_tiles_keep_their_meaning(tmp_path):
    from satmip_jax.data.images import decode

    grey = picture(32, 16, bands=1)
    for name, profile in (("a", {}), ("b", {"photometric": "MINISWHITE"})):
        geotiff(grey, None, tmp_path / f"{name}.tif", **profile)
    whole, tiled = GeoTIFFs([tmp_path]), GeoTIFFs([tmp_path], tile=16)
    for i, ref in enumerate(whole.refs()):
        left = tiled.read(tiled.refs()[2 * i], Problems()).image
        expected = decode(whole.read(ref, Problems()).image)[:, :16]
        assert np.array_equal(decode(left), expected)
