"""Places and records of the synthetic data set."""

import json
import math
import re
from datetime import datetime

import pytest

from satmip_jax.metadata.countries import country_cells
from satmip_jax.metadata.solar import solar_position
from satmip_jax.sources.synthetic.visits import PLATFORMS, draw, place


def cell_of(spot):
    return int(spot.latitude // 1) + 90, int(spot.longitude // 1) + 180


def test_records_are_consistent_and_match_the_scene():
    for index in range(150):
        scene, record = draw(3, "train", index, 0, 96)
        spot = place(3, "train", index)
        when = datetime.fromisoformat(record["timestamp"])
        sun = solar_position(spot.longitude, spot.latitude, when)
        assert sun == pytest.approx(
            (record["sun_azimuth_dbl"], record["sun_elevation_dbl"]), abs=1e-6
        )
        assert record["sun_elevation_dbl"] >= 18
        local = (when.hour + when.minute / 60 + spot.longitude / 15) % 24
        assert 9 < local < 12
        assert record["gsd"] == pytest.approx(record["mean_pixel_height"] * 111_320)
        if record["utm"] != "32V":  # the coast of Norway
            assert int(record["utm"][:-1]) == int((spot.longitude + 180) // 6) + 1
        assert country_cells(record["country_code"])[cell_of(spot)]
        assert (record["utm"][-1] >= "N") == (spot.latitude >= 0)
        first, last, *_ = PLATFORMS[record["sensor_platform_name"]]
        assert first <= when.year <= last + 1
        assert 75 <= record["gsd"] * 96 <= 450
        for name in ("off_nadir_angle", "target_azimuth", "multi_resolution"):
            low, value, high = (record[f"{name}{k}_dbl"] for k in ("_min", "", "_max"))
            assert low <= value <= high
        x, y, w, h = record["bounding_boxes"][1]["box"]
        assert min(x, y) >= 0
        assert x + w <= record["img_width"] == scene.width
        assert y + h <= record["img_height"] == scene.height


def test_the_scene_has_the_values_of_the_record():
    clouds = set()
    for index in range(40):
        scene, record = draw(4, "val", index, 0, 96)
        for name in ("sun_azimuth", "sun_elevation", "target_azimuth"):
            assert getattr(scene, name) == pytest.approx(record[f"{name}_dbl"], abs=1e-6)
        assert scene.off_nadir == pytest.approx(record["off_nadir_angle_dbl"], abs=1e-6)
        assert scene.cloud_cover == record["cloud_cover"]
        assert scene.sensor == record["sensor_platform_name"]
        assert scene.gsd == record["gsd"]
        assert scene.day == datetime.fromisoformat(record["timestamp"]).timetuple().tm_yday
        clouds.add(scene.cloud_cover)
    assert len(clouds) > 5


def ring(text):
    """West, south, east and north of a polygon in WKT."""
    numbers = [float(x) for x in re.findall(r"-?[\d.]+", text)]
    return min(numbers[::2]), min(numbers[1::2]), max(numbers[::2]), max(numbers[1::2])


def test_footprints_lie_on_the_ground_as_the_pixels_say():
    """The image around the place, and the object's box within it, in metres of a sphere."""
    for index in range(40):
        scene, record = draw(4, "val", index, 0, 96)
        spot = place(4, "val", index)
        west, south, east, north = ring(record["raw_location"])
        across = 111_320 * math.cos(math.radians(spot.latitude))  # metres per degree of longitude
        assert ((west + east) / 2, (south + north) / 2) == pytest.approx(
            (spot.longitude, spot.latitude), abs=1e-9
        )
        assert (east - west) * across == pytest.approx(scene.gsd * scene.width, rel=1e-6)
        assert (north - south) * 111_320 == pytest.approx(scene.gsd * scene.height, rel=1e-6)
        box = record["bounding_boxes"][0]
        x, y, *_ = box["box"]
        left, _, _, top = ring(box["raw_location"])
        assert (left - west) * across == pytest.approx(x * scene.gsd, abs=1e-3)
        assert (north - top) * 111_320 == pytest.approx(y * scene.gsd, abs=1e-3)


def test_visits_of_a_place_differ_and_splits_have_other_places():
    drawn = [draw(5, "train", 3, visit, 96)[1] for visit in range(3)]
    assert len({record["timestamp"] for record in drawn}) == 3
    assert len({record["raw_location"] for record in drawn}) == 3
    train, val = ({place(5, split, i) for i in range(50)} for split in ("train", "val"))
    assert not train & val


def test_real_records_have_the_same_keys(real_data):
    real = json.loads((real_data / "fmow" / "fountain_514_1_rgb.json").read_text())
    _, record = draw(0, "train", 0, 0, 96)
    record["img_filename"] = ""
    assert record.keys() == real.keys()
    for key, value in real.items():
        assert type(record[key]) is type(value), key
    for ours, theirs in zip(record["bounding_boxes"], real["bounding_boxes"], strict=True):
        assert ours.keys() | {"crowd_rank"} == theirs.keys() | {"crowd_rank"}
