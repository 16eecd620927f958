"""Places and records of the synthetic data set."""

import json
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


def test_real_records_have_the_same_keys(real_data):
    real = json.loads((real_data / "fmow" / "fountain_514_1_rgb.json").read_text())
    _, record = draw(0, "train", 0, 0, 96)
    record["img_filename"] = ""
    assert record.keys() == real.keys()
    for key, value in real.items():
        assert type(record[key]) is type(value), key
    for ours, theirs in zip(record["bounding_boxes"], real["bounding_boxes"], strict=True):
        assert ours.keys() | {"crowd_rank"} == theirs.keys() | {"crowd_rank"}
