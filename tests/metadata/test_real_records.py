"""Real records of fMoW, WorldView and Maxar."""

import csv
import gzip
import json

import pytest

from satmip_jax.metadata.record import Metadata, Problems


def from_vendor(record: dict) -> dict:
    """A record in fMoW's schema under our names; `sources.fmow` does this more carefully."""
    raw = {
        "gsd": record.get("gsd"),
        "multispectral_gsd": record.get("multi_resolution_dbl"),
        "pixel_size": [record.get("mean_pixel_width"), record.get("mean_pixel_height")],
        "timestamp": record.get("timestamp"),
        "utm_zone": record.get("utm"),
        "country_code": record.get("country_code"),
        "cloud_cover": record.get("cloud_cover"),
        "scan_direction": record.get("scan_direction"),
        "wavelengths": record.get("approximate_wavelengths"),
        "target_azimuth_angle": record.get("target_azimuth_dbl"),
        "sun_azimuth_angle": record.get("sun_azimuth_dbl"),
        "sun_elevation_angle": record.get("sun_elevation_dbl"),
        "off_nadir_angle": record.get("off_nadir_angle_dbl"),
        "sensor_platform": record.get("sensor_platform_name"),
    }
    if "raw_location" in record:
        raw["location"] = centre(record["raw_location"])
    return raw


def centre(polygon: str) -> tuple[float, float]:
    points = [tuple(map(float, p.split())) for p in polygon[10:-2].split(",")]
    longitudes, latitudes = zip(*points, strict=True)
    return (min(longitudes) + max(longitudes)) / 2, (min(latitudes) + max(latitudes)) / 2


def test_a_real_fmow_record(real_data):
    record = json.loads((real_data / "fmow" / "fountain_514_1_rgb.json").read_text())
    problems = Problems()
    metadata = Metadata.parse(from_vendor(record), problems)
    assert problems.rows() == []
    assert metadata.to_json() == {
        "gsd": [0.468074887991] * 2,
        "multispectral_gsd": 1.87378120422,
        "pixel_size": [4.597314657113e-06, 4.595430769222e-06],
        "timestamp": "2012-04-02T10:32:22Z",
        "location": pytest.approx([8.5830818, 47.4490394778]),
        "utm_zone": "32T",
        "country_code": "CHE",
        "cloud_cover": 0.0,
        "scan_direction": "Reverse",
        "wavelengths": [661.0, 545.0, 477.0],
        "target_azimuth_angle": 31.2082061768,
        "sun_azimuth_angle": 159.207946777,
        "sun_elevation_angle": 46.1834640503,
        "off_nadir_angle": 21.8978748322,
        "sensor_platform": "GEOEYE01",
    }
    # the fountain: 72 x 60 pixels of 977 x 663, stored as a square of 224
    stored = metadata.crop_resize((466, 299, 72, 60), (977, 663), 224).values
    assert stored["gsd"] == pytest.approx((0.150452642568, 0.125377202140))
    assert stored["multispectral_gsd"] == pytest.approx((0.552096247672,))
    # where the vendor places the fountain, within about a pixel
    longitude, latitude = centre(record["bounding_boxes"][0]["raw_location"])
    assert stored["location"][0] == pytest.approx(longitude, abs=1.5 * 4.6e-6)
    assert stored["location"][1] == pytest.approx(latitude, abs=1.5 * 4.6e-6)
    assert abs(stored["location"][0] - metadata.values["location"][0]) > 10 * 4.6e-6


def test_real_worldview_records(real_data):
    problems = Problems()
    files = sorted((real_data / "worldview").rglob("*_rgb.json"))
    records = [json.loads(f.read_text()) for f in files]
    parsed = [Metadata.parse(from_vendor(r), problems) for r in records]
    assert len(parsed) >= 20
    assert {reason for _, reason, _ in problems.rows()} == {"missing"}
    for name in ("cloud_cover", "scan_direction", "wavelengths"):
        assert problems.count(name, "missing") == len(files)
    without = sum("raw_location" not in r for r in records)
    assert problems.count("location") == without > 0
    for record, metadata in zip(records, parsed, strict=True):
        assert metadata.values["off_nadir_angle"] == (record["off_nadir_angle_dbl"],)
        assert metadata.values["timestamp"].strftime("%Y-%m-%dT%H:%M:%SZ") == record["timestamp"]


def test_real_maxar_records(real_data):
    """Thousands of records of a table, where everything is text."""
    columns = {
        "gsd": "gsd",
        "timestamp": "datetime",
        "utm_zone": "utm_zone",
        "cloud_cover": "tile:clouds_percent",
        "off_nadir_angle": "view:off_nadir",
        "target_azimuth_angle": "view:azimuth",
        "sun_azimuth_angle": "view:sun_azimuth",
        "sun_elevation_angle": "view:sun_elevation",
        "sensor_platform": "platform",
    }
    problems, n = Problems(), 0
    with gzip.open(real_data / "maxar" / "maxar_open_data_tiles.csv.gz", "rt") as file:
        for n, row in enumerate(csv.DictReader(file), 1):
            if n % 8:
                continue
            metadata = Metadata.parse({k: row[c] for k, c in columns.items()}, problems)
            for name in columns:
                assert (name in metadata.values) == bool(row[columns[name]])
    assert n > 30_000
    assert {reason for _, reason, _ in problems.rows()} == {"missing"}
