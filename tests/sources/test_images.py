"""Images without a table: single files, folders and zips; GeoTIFFs with their tags and outlines."""

import zipfile
from collections import Counter

import cv2
import numpy as np
import pytest

from satmip_jax.metadata.record import Problems
from satmip_jax.prepare.run import prepare
from satmip_jax.sources.base import SourceError
from satmip_jax.sources.images import Images
from satmip_jax.sources.registry import open_source
from tests.sources.geotiff_files import AFFINE, geotiff, picture


def png(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), picture(40, 30).transpose(1, 2, 0))
    return path


def test_files_folders_and_zips_are_read_alike(tmp_path):
    png(tmp_path / "d" / "north" / "a.png")
    geotiff(picture(64, 64), None, tmp_path / "d" / "b.tif")
    (tmp_path / "d" / "notes.txt").touch()
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.write(tmp_path / "d" / "north" / "a.png", "south/a.png")
    single = png(tmp_path / "e" / "a.png")
    source = open_source("images", [tmp_path / "d", tmp_path / "z.zip", single], classes="folders")
    examples = {ref.id: source.read(ref, Problems()) for ref in source.refs()}
    name = single.as_posix().lstrip("/")
    assert set(examples) == {"north/a.png", "south/a.png", name}
    assert source.skipped == {"file in no folder of a class": 1}
    assert source.skipped.named[0][0] == str(tmp_path / "d" / "b.tif")
    assert [examples[key].label for key in ("north/a.png", "south/a.png", name)] == [
        "north",
        "south",
        "e",
    ]
    assert examples[name].image == single.read_bytes()
    assert examples[name].metadata.values == {}


def test_tags_of_geotiffs_are_read_and_only_they_are_cut_into_tiles(tmp_path):
    png(tmp_path / "a.png")
    geotiff(picture(64, 32), {None: {"cloud_cover": "12.5"}}, tmp_path / "b.tif")
    source = Images([tmp_path], tile=32)
    examples = {ref.id: source.read(ref, Problems()) for ref in source.refs()}
    assert list(examples) == ["a.png", "b.tif#0,0", "b.tif#32,0"]
    assert [source.window_of(ref) for ref in source.refs()] == [
        None,
        (0, 0, 32, 32),
        (32, 0, 32, 32),
    ]
    tile = examples["b.tif#32,0"]
    assert tile.metadata.values["cloud_cover"] == (12.5,)
    ring = np.array(tile.footprint["coordinates"][0])
    longitude, latitude = tile.metadata.values["location"]
    assert ring[:-1].mean(axis=0) == pytest.approx([longitude, latitude], abs=1e-6)
    assert np.ptp(ring[:, 1]) * 111_320 == pytest.approx(320, rel=0.01)


@pytest.mark.parametrize(("west", "expected"), [(179.99, 179.99), (-180.0, -180.0), (350.0, None)])
def test_outlines_do_not_jump_at_the_180th_meridian(tmp_path, west, expected):
    size = 2.0**-10
    transform = AFFINE(size, 0, west, 0, -size, 50.0)
    geotiff(picture(40, 20), None, tmp_path / "a.tif", crs="EPSG:4326", transform=transform)
    (ref,) = Images([tmp_path]).refs()
    (ring,) = Images([tmp_path]).read(ref, Problems()).footprint["coordinates"]
    xs, ys = np.array(ring).T
    assert np.ptp(xs) == pytest.approx(40 * size)
    assert (ys.min(), ys.max()) == pytest.approx((50 - 20 * size, 50))
    assert (xs.min() - west) % 360 == pytest.approx(0, abs=1e-6)
    assert expected is None or xs.min() == pytest.approx(expected, abs=1e-6)


def test_an_image_of_the_whole_earth_has_its_outline(tmp_path):
    transform = AFFINE(9, 0, -180, 0, -9, 90)
    geotiff(picture(40, 20), None, tmp_path / "a.tif", crs="EPSG:4326", transform=transform)
    (ref,) = Images([tmp_path]).refs()
    (ring,) = Images([tmp_path]).read(ref, Problems()).footprint["coordinates"]
    assert np.array(ring)[:-1].tolist() == [[-180, -90], [180, -90], [180, 90], [-180, 90]]


def test_nothing_to_read_is_one_sentence(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(SourceError, match=r"no images in .*\*\.jpg"):
        Images([tmp_path]).refs()


def test_images_in_no_class_folder_are_not_denied(tmp_path):
    for i in range(20):
        (tmp_path / "train").mkdir(exist_ok=True)
        png(tmp_path / ("train" if i % 2 else ".") / f"{i}.tif")
    with pytest.raises(SourceError) as error:
        Images([tmp_path], classes="folders")
    assert "none of the 20 images" in str(error.value)
    assert "leave out --classes folders, or move the files into one folder per class" in str(
        error.value
    )
    assert len(Images([tmp_path]).refs()) == 20


def test_small_images_are_not_enlarged_without_a_word(tmp_path):
    files = [png(tmp_path / f"{i}.png") for i in range(4)]
    options = {"image_size": 64, "workers": 0, "progress": False}
    report = prepare(Images(files), tmp_path / "out", **options)
    note = "4 images of 40 px are enlarged to 64: --image-size 40 stores them as they are"
    assert report.rules() == [note]
    assert prepare(Images(files), tmp_path / "out", **options).rules() == [note]  # resumed
    cv2.imwrite(str(tmp_path / "0.png"), picture(50, 50).transpose(1, 2, 0))
    cv2.imwrite(str(tmp_path / "1.png"), picture(70, 50).transpose(1, 2, 0))
    report = prepare(Images(files), tmp_path / "mixed", **options)
    assert report.rules()[0].startswith("3 images of 40 to 50 px (median 40) are enlarged to 64")
    assert prepare(Images(files), tmp_path / "small", **options | {"image_size": 45}).rules() == []


def test_prepare_reads_single_files(tmp_path):
    files = [png(tmp_path / "x" / f"{i}.png") for i in range(4)]
    report = prepare(Images(files), tmp_path / "out", image_size=8, workers=0, progress=False)
    assert report.splits == Counter(train=4)
