"""Folders and zips of GeoTIFFs: their tags, their coordinates and their tiles."""

import json
import math
import pickle
import zipfile
from datetime import UTC, datetime

import numpy as np
import pytest
from click.testing import CliRunner

from satmip_jax.cli import cli
from satmip_jax.data.images import decode
from satmip_jax.data.rendering import Rendering
from satmip_jax.data.shard_dataset import ShardDataset
from satmip_jax.metadata.record import Problems
from satmip_jax.sources.base import SourceError
from satmip_jax.sources.geotiff import GeoTIFFs
from satmip_jax.sources.registry import open_source
from tests.sources.geotiff_files import AFFINE, geotiff, picture

MAXAR = {
    "IMAGE_1.satId": '"WV03"',
    "IMAGE_1.firstLineTime": "2018-06-22T16:55:40.000000Z;",
    "IMAGE_1.cloudCover": "0.05",
    "IMAGE_1.meanSunAz": "58.571484",
    "IMAGE_1.meanSunEl": "71.182274",
    "IMAGE_1.meanSatAz": "314.29373",
    "IMAGE_1.meanOffNadirViewAngle": "21.97336",
    "IMAGE_1.scanDirection": "Forward",
    "productGSD": "0.35173947",
}
LANDSAT = {
    "SPACECRAFT_ID": "LANDSAT_8",
    "DATE_ACQUIRED": "2020-07-01",
    "SCENE_CENTER_TIME": "09:59:12.1234560Z",
    "CLOUD_COVER": "12.5",
    "SUN_AZIMUTH": "141.25",
    "SUN_ELEVATION": "-3.5",
}
SENTINEL = {
    "DATATAKE_1_SPACECRAFT_NAME": "Sentinel-2A",
    "DATATAKE_1_DATATAKE_SENSING_START": "2021-05-04T10:20:21.024Z",
    "PRODUCT_START_TIME": "2021-05-04T10:20:19.000Z",
    "CLOUD_COVERAGE_ASSESSMENT": "3.75",
}
PLANET = {
    "TIFFTAG_DATETIME": "2019:02:03 04:05:06",
    "TIFFTAG_IMAGEDESCRIPTION": '{"atmospheric_correction": {"solar_azimuth_angle": 100.5, '
    '"solar_zenith_angle": 30.25, "satellite_azimuth_angle": 0.0}}',
}


def read_all(source):
    problems = Problems()
    examples = [source.read(ref, problems) for ref in source.refs()]
    return examples, problems


def values_of(tmp_path, tags, **profile):
    geotiff(picture(64, 64), tags, tmp_path / "tifs/a.tif", **profile)
    (example,), _ = read_all(open_source("geotiff", [tmp_path / "tifs"]))
    return example.metadata.values


def test_tags_of_maxar_come_back_to_the_digit(tmp_path):
    values = values_of(tmp_path, {"IMD": MAXAR})
    assert values["sensor_platform"] == "WORLDVIEW03_VNIR"
    assert values["timestamp"] == datetime(2018, 6, 22, 16, 55, 40, tzinfo=UTC)
    assert values["cloud_cover"] == (5.0,)
    assert values["sun_azimuth_angle"] == (58.571484,)
    assert values["sun_elevation_angle"] == (71.182274,)
    assert values["target_azimuth_angle"] == (314.29373,)
    assert values["off_nadir_angle"] == (21.97336,)
    assert values["scan_direction"] == "Forward"
    assert values["gsd"] == (0.35173947, 0.35173947)  # stated, and not the 10 m of the grid


def test_tags_of_other_producers(tmp_path):
    landsat = values_of(tmp_path, {None: LANDSAT})
    assert landsat["sensor_platform"] == "LANDSAT_8"
    assert landsat["timestamp"] == datetime(2020, 7, 1, 9, 59, 12, 123456, tzinfo=UTC)
    assert (landsat["cloud_cover"], landsat["sun_azimuth_angle"]) == ((12.5,), (141.25,))
    assert landsat["sun_elevation_angle"] == (-3.5,)  # in the night
    sentinel = values_of(tmp_path, {None: SENTINEL})
    assert sentinel["sensor_platform"] == "Sentinel-2A"
    assert sentinel["timestamp"] == datetime(2021, 5, 4, 10, 20, 21, 24000, tzinfo=UTC)
    assert sentinel["cloud_cover"] == (3.75,)
    planet = values_of(tmp_path, {None: PLANET})
    assert planet["timestamp"] == datetime(2019, 2, 3, 4, 5, 6, tzinfo=UTC)
    assert (planet["sun_azimuth_angle"], planet["sun_elevation_angle"]) == ((100.5,), (59.75,))
    assert "target_azimuth_angle" not in planet  # Planet writes 0 for all


def test_our_names_come_first(tmp_path):
    ours = {"gsd": "0.5,0.25", "cloud_cover": "7", "country_code": "FRA", "platform": "x-1"}
    values = values_of(tmp_path, {None: {**LANDSAT, **ours, "off_nadir": "3"}})
    assert values["gsd"] == (0.5, 0.25)
    assert values["cloud_cover"] == (7.0,)
    assert values["country_code"] == "FRA"
    assert values["sensor_platform"] == "x-1"
    assert values["off_nadir_angle"] == (3.0,)


@pytest.mark.parametrize("text", ["-999", "-999.000000"])
def test_the_vendors_mark_of_unknown_is_missing(tmp_path, text):
    tags = {"IMAGE_1.cloudCover": text, "IMAGE_1.meanSunAz": text, "IMAGE_1.meanSunEl": text}
    geotiff(picture(64, 64), {"IMD": tags}, tmp_path / "a.tif")
    (example,), problems = read_all(GeoTIFFs([tmp_path]))
    assert not {"cloud_cover", "sun_azimuth_angle", "sun_elevation_angle"} & set(
        example.metadata.values
    )
    assert problems.count("cloud_cover", "out of range") == 0


def test_coordinates_of_a_utm_zone(tmp_path):
    # on the central meridian of zone 33: 15 degrees east; 5,000,000 m north is 45.1535 degrees,
    # from the length of the meridian's arc to 45 degrees, 4,984,944.378 m, and 111,131.8 m/degree
    transform = AFFINE(10, 0, 500_000 - 320, 0, -20, 5_000_000 + 640)
    values = values_of(tmp_path, None, transform=transform)
    latitude = 45 + (5_000_000 / 0.9996 - 4_984_944.378) / 111_131.8
    assert values["location"] == pytest.approx((15.0, latitude), abs=2e-5)
    assert values["gsd"] == (10.0, 20.0)
    assert values["utm_zone"] == "33T"
    per_degree = 111_320 * math.cos(math.radians(latitude))
    assert values["pixel_size"] == pytest.approx((10 / per_degree, 20 / 111_132), rel=3e-3)


def test_coordinates_in_degrees_are_exact(tmp_path):
    size = 3.159714965864175e-06
    transform = AFFINE(size, 0, 179.9999, 0, -size, -60.5)
    values = values_of(tmp_path, None, crs="EPSG:4326", transform=transform)
    assert values["pixel_size"] == (size, size)
    assert values["location"] == (round(179.9999 + 32 * size - 360, 7), round(-60.5 - 32 * size, 7))
    # a degree of latitude at 60 degrees is 111,412 m, of longitude 55,800 m (at 60.5: less)
    assert values["gsd"][1] == pytest.approx(size * 111_421, rel=1e-3)
    assert values["gsd"][0] == pytest.approx(
        size * 111_320 * math.cos(math.radians(60.5)), rel=4e-3
    )
    assert "utm_zone" not in values


def test_the_ground_distance_of_web_mercator_is_not_its_grid(tmp_path):
    transform = AFFINE(10, 0, 0, 0, -10, 8_399_737.9)  # 60 degrees north
    values = values_of(tmp_path, None, crs="EPSG:3857", transform=transform)
    assert values["gsd"] == pytest.approx((5.0, 5.0), rel=5e-3)


def test_units_other_than_metres(tmp_path):
    transform = AFFINE(3, 0, 2_000_000, 0, -3, 700_000)  # feet of a US state plane
    values = values_of(tmp_path, None, crs="EPSG:2263", transform=transform)
    assert values["gsd"] == pytest.approx((0.9144018, 0.9144018), rel=1e-6)


def test_no_coordinates_are_missing_fields(tmp_path):
    geotiff(picture(32, 32), None, tmp_path / "a.tif", crs=None, transform=None)
    (example,), problems = read_all(GeoTIFFs([tmp_path]))
    assert not example.metadata.values
    assert problems.to_json()["location"] == {"no coordinates": 1}


def test_tiles_cover_the_image_and_know_their_places(tmp_path):
    pixels = picture(100, 70)
    geotiff(pixels, None, tmp_path / "a.tif")
    whole = GeoTIFFs([tmp_path])
    source = GeoTIFFs([tmp_path], tile=40, stride=30)
    refs = source.refs()
    # 3 columns end at 100 exactly; the last row is shifted from 60 to 30
    assert [ref.id for ref in refs] == [f"a.tif#{x},{y}" for y in (0, 30) for x in (0, 30, 60)]
    covered = np.zeros((70, 100), bool)
    centre = whole.read(whole.refs()[0], Problems()).metadata.crop_resize
    for ref in refs:
        x, y = map(int, ref.id.partition("#")[2].split(","))
        example = source.read(ref, Problems())
        assert np.array_equal(
            decode(example.image), pixels[:, y : y + 40, x : x + 40].transpose(1, 2, 0)
        )
        covered[y : y + 40, x : x + 40] = True
        expected = centre((x, y, 40, 40), (100, 70), 40).values["location"]
        assert example.metadata.values["location"] == pytest.approx(expected, abs=2e-6)
        assert example.metadata.values["gsd"] == (10.0, 10.0)
    assert covered.all()


def test_an_image_smaller_than_a_tile_is_one(tmp_path):
    geotiff(picture(20, 90), None, tmp_path / "a.tif")
    refs = GeoTIFFs([tmp_path], tile=40).refs()
    assert [ref.location[3:] for ref in refs] == [(0, y, 20, 40) for y in (0, 40, 50)]


def test_16_bits_are_scaled_by_the_stated_rule(tmp_path):
    values = picture(64, 64, bands=4, dtype="uint16")
    geotiff(values, None, tmp_path / "a.tif")
    source = GeoTIFFs([tmp_path], tile=32)
    image = source.read(source.refs()[3], Problems()).image
    pixels = decode(image, rendering=Rendering((3, 2, 1), (0.0, 3000.0)))
    expected = np.rint(values[[2, 1, 0], 32:, 32:] * (255 / 3000)).transpose(1, 2, 0)
    assert np.array_equal(pixels, expected)


@pytest.mark.parametrize("marked", ["nodata", "mask", "alpha", "nan"])
def test_tiles_without_data_are_skipped_and_counted(tmp_path, marked):
    values = picture(96, 32, dtype="float32" if marked == "nan" else "uint8")
    missing = np.zeros((32, 96), bool)
    missing[:, 64:] = missing[:, 30:40] = True  # the third tile, and a fourth of the second
    profile, mask = {}, None
    if marked == "mask":
        mask = ~missing
    elif marked == "alpha":
        values = np.concatenate([values, np.where(missing, 0, 255)[None].astype(np.uint8)])
        profile = {"photometric": "RGB", "alpha": "YES"}
    else:
        values[:, missing] = np.nan if marked == "nan" else 0
        profile = {"nodata": 0} if marked == "nodata" else {}
    geotiff(values, None, tmp_path / "a.tif", mask=mask, **profile)
    source = GeoTIFFs([tmp_path], tile=32)
    assert [ref.id for ref in source.refs()] == ["a.tif#0,0", "a.tif#32,0"]
    assert source.skipped == {"tile without data": 1}
    strict = GeoTIFFs([tmp_path], tile=32, min_data=0.8)
    assert [ref.id for ref in strict.refs()] == ["a.tif#0,0"]
    assert strict.skipped == {"tile without data": 1, "tile with data in less than 80%": 1}


def test_classes_and_splits_from_folders_and_zips(tmp_path):
    data = geotiff(picture(16, 16))
    with zipfile.ZipFile(tmp_path / "more.zip", "w") as archive:
        archive.writestr("val/zoo/c.TIF", data)
    for name in ("train/barn/a.tif", "Val/zoo/b.tiff", "train/d.tif"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    source = pickle.loads(pickle.dumps(GeoTIFFs([tmp_path], classes="folders", tile=16)))
    assert source.classes == ("barn", "zoo")
    examples = [(source.read(ref, Problems()), ref) for ref in source.refs()]
    assert [(e.id, e.label, ref.split) for e, ref in examples] == [
        ("Val/zoo/b.tiff#0,0", "zoo", "val"),
        ("train/barn/a.tif#0,0", "barn", "train"),
        ("val/zoo/c.TIF#0,0", "zoo", "val"),
    ]
    assert source.skipped == {"file in no folder of a class": 1}


def test_tiles_of_a_file_share_its_split(tmp_path):
    for i in range(40):
        geotiff(picture(32, 16), None, tmp_path / f"{i}.tif")
    refs = GeoTIFFs([tmp_path], tile=16, splits="train=0.5,val=0.5", seed=3).refs()
    splits = {}
    for ref in refs:
        splits.setdefault(ref.id.partition("#")[0], set()).add(ref.split)
    assert len(refs) == 80
    assert all(len(names) == 1 for names in splits.values())
    assert {name for names in splits.values() for name in names} == {"train", "val"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tile": 4}, "--tile 4: must be from 8 to 4096"),
        ({"stride": 8}, "--stride 8: must be above zero, and needs --tile"),
        ({"min_data": 2.0}, "--min-data 2: must be from 0 to 1"),
        ({"splits": "train=0.5"}, "add up to 0.5"),
    ],
)
def test_wrong_options_are_one_sentence(tmp_path, options, message):
    with pytest.raises(SourceError, match=message):
        open_source("geotiff", [tmp_path], **options)


def test_prepare_writes_tiles_with_their_metadata(tmp_path):
    geotiff(picture(128, 64, dtype="uint16"), {"IMD": MAXAR}, tmp_path / "in/train/a.tif")
    (tmp_path / "in/train/b.tif").write_bytes(b"II*\0 damaged")
    options = {"source": tmp_path / "in", "out": tmp_path / "out", "tile": 64, "workers": 0}
    options |= {"scale": "0,3000", "image-size": 32}
    flags = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    result = CliRunner().invoke(cli, ["prepare", "geotiff", *flags])
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "out/prepare_report.json").read_text())
    assert report["skipped"] == {"file that cannot be cut into tiles: damaged TIFF header": 1}
    data = ShardDataset(tmp_path / "out", "train")
    assert data.ids(range(2)) == ["train/a.tif#0,0", "train/a.tif#64,0"]
    values = data[0]["metadata"].values
    assert values["gsd"] == pytest.approx((0.70347894, 0.70347894), rel=1e-6)  # 64 to 32 pixels
    assert values["sensor_platform"] == "WORLDVIEW03_VNIR"
