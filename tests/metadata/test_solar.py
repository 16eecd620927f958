"""Position of the sun."""

import csv
import gzip
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from satmip_jax.metadata.plausibility import PlausibilityCheck
from satmip_jax.metadata.record import Metadata
from satmip_jax.metadata.solar import solar_clock, solar_position, solar_positions


@pytest.mark.parametrize(
    ("longitude", "latitude", "when", "azimuth", "elevation"),
    [  # from real records: fMoW's fountain_514_1, and the paper's example
        (8.5831, 47.4490, datetime(2012, 4, 2, 10, 32, 22, tzinfo=UTC), 159.21, 46.18),
        (-73.310776, -3.785814, datetime(2015, 9, 21, 15, 30, 8, tzinfo=UTC), 77.28, 70.44),
    ],
)
def test_position_of_the_sun(longitude, latitude, when, azimuth, elevation):
    found = solar_position(longitude, latitude, when)
    assert found[1] == pytest.approx(elevation, abs=0.5)
    # azimuth lines draw together towards the zenith
    assert (found[0] - azimuth) * np.cos(np.radians(elevation)) == pytest.approx(0, abs=0.5)


def random_places(n):
    rng = np.random.default_rng(0)
    longitude, latitude = rng.uniform(-180, 180, n), np.degrees(np.arcsin(rng.uniform(-1, 1, n)))
    start = datetime(2000, 1, 1, tzinfo=UTC)
    times = [start + timedelta(seconds=int(s)) for s in rng.integers(0, 20 * 365 * 86_400, n)]
    return longitude, latitude, times


def test_arrays_agree_with_single_positions():
    longitude, latitude, times = random_places(300)
    day, hour = np.array([solar_clock(when) for when in times]).T
    single = [solar_position(*row) for row in zip(longitude, latitude, times, strict=True)]
    arrays = np.stack(solar_positions(longitude, latitude, day, hour), 1)
    np.testing.assert_allclose(arrays, single, rtol=0, atol=1e-9)


def test_an_hour_of_another_day_is_the_same_time():
    longitude, latitude, times = random_places(50)
    day, hour = np.array([solar_clock(when) for when in times]).T
    ordinary = solar_positions(longitude, latitude, day, hour)
    np.testing.assert_allclose(
        solar_positions(longitude, latitude, day - 1, hour + 24), ordinary, rtol=0, atol=1e-9
    )


def test_real_maxar_records_agree_with_the_sun(real_data):
    """Tens of thousands of real records agree within 1.1 degrees on the sky."""
    rasterio_warp = pytest.importorskip("rasterio.warp")
    names = ("view:sun_azimuth", "view:sun_elevation")
    by_crs = {}
    with gzip.open(real_data / "maxar" / "maxar_open_data_tiles.csv.gz", "rt") as file:
        for i, row in enumerate(csv.DictReader(file)):
            if i % 8 == 0:
                crs = row["proj:code"] or f"EPSG:{int(float(row['proj:epsg']))}"
                by_crs.setdefault(crs, []).append(row)
    check, n = PlausibilityCheck(), 0
    for crs, rows in by_crs.items():
        boxes = np.array([[float(x) for x in row["proj:bbox"].split(",")] for row in rows])
        x, y = (boxes[:, :2] + boxes[:, 2:]).T / 2
        longitude, latitude = map(np.array, rasterio_warp.transform(crs, "EPSG:4326", x, y))
        times = [datetime.fromisoformat(row["datetime"]) for row in rows]
        day, hour = np.array([solar_clock(when) for when in times]).T
        azimuth, elevation = solar_positions(longitude, latitude, day, hour)
        given = np.array([[float(row[name]) for name in names] for row in rows])
        turn = (azimuth - given[:, 0] + 180) % 360 - 180
        assert np.abs(elevation - given[:, 1]).max() < 1.1
        assert np.abs(turn * np.cos(np.radians(elevation))).max() < 1.1
        for i, row in enumerate(rows):
            raw = {
                "location": [longitude[i], latitude[i]],
                "timestamp": row["datetime"],
                "sun_azimuth_angle": row[names[0]],
                "sun_elevation_angle": row[names[1]],
                "utm_zone": row["utm_zone"],
            }
            check.add(str(i), Metadata.parse(raw))
            n += 1
    assert n > 3_900
    assert check.to_json() == {"sun": {"checked": n}, "utm_zone": {"checked": n}}
