"""Places, times and angles in the file of `satmip embed`, opened by geopandas and DuckDB."""

import json

import cv2
import duckdb
import geopandas
import numpy as np
import pandas as pd
import pytest
import shapely

import satmip_jax as sm
from satmip_jax.inference.embed.run import embed_files
from satmip_jax.inference.embed.table import EmbeddingTable
from tests.sources.geotiff_files import AFFINE, geotiff, picture

# key of a record of WorldView or GeoEye -> our field, tag of Maxar, property of STAC
FIELDS = {
    "gsd": ("gsd", "productGSD", "gsd"),
    "timestamp": ("timestamp", "TLCTime", "datetime"),
    "off_nadir_angle_dbl": ("off_nadir_angle", "meanOffNadirViewAngle", "view:off_nadir"),
    "sun_azimuth_dbl": ("sun_azimuth_angle", "meanSunAz", "view:sun_azimuth"),
    "sun_elevation_dbl": ("sun_elevation_angle", "meanSunEl", "view:sun_elevation"),
    "target_azimuth_dbl": ("target_azimuth_angle", "meanSatAz", "view:azimuth"),
    "sensor_platform_name": ("sensor_platform", "platform", "platform"),
}


@pytest.fixture(scope="module")
def model(tiny_run):
    return sm.load(tiny_run, batch_size=8)


def outline(record):
    """The footprint of a real record, or a box of one degree where it has none."""
    return shapely.from_wkt(record["raw_location"]) if "raw_location" in record else None


def as_geotiff(record, pixels, folder, name):
    tags = {ours: str(record[key]) for key, (_, ours, _) in FIELDS.items()}
    place = outline(record)
    height, width = pixels.shape[:2]
    profile = {"crs": None, "transform": None}
    if place is not None:
        west, south, east, north = place.bounds
        step = (east - west) / width, (north - south) / height
        profile = {"crs": "EPSG:4326", "transform": AFFINE(step[0], 0, west, 0, -step[1], north)}
    values = pixels[:, :, ::-1].transpose(2, 0, 1)
    geotiff(values, {"IMD": tags}, folder / f"{name}.tif", **profile)


def as_stac(record, pixels, folder, name):
    cv2.imwrite(str(folder / f"{name}.jpg"), pixels)
    place = outline(record)
    properties = {theirs: record[key] for key, (_, _, theirs) in FIELDS.items()}
    content = {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": name,
        "geometry": place and json.loads(shapely.to_geojson(place)),
        "properties": properties,
        "links": [],
        "assets": {"visual": {"href": f"{name}.jpg", "type": "image/jpeg"}},
    }
    if place is not None:
        content["bbox"] = list(place.bounds)
    (folder / f"{name}.json").write_text(json.dumps(content))


@pytest.mark.parametrize("write", [as_geotiff, as_stac])
def test_real_scenes_come_back_to_the_digit(real_data, model, tmp_path, write):
    records = {}
    for file in sorted((real_data / "worldview").rglob("*_rgb.json")):
        record = json.loads(file.read_text())
        pixels = cv2.resize(cv2.imread(str(file.with_suffix(".jpg"))), (64, 64))
        records[file.stem] = record
        write(record, pixels, tmp_path, file.stem)
    assert len(records) == 26
    out = tmp_path / "e.parquet"
    report = embed_files(model, [tmp_path], out, progress=False, announce=lambda _: None)
    assert (report.rows, dict(report.left_out)) == (26, {})
    frame = geopandas.read_parquet(out)
    assert frame.crs.equals("OGC:CRS84")
    for row in frame.itertuples():
        record = records[row.path.rsplit("/", 1)[1].partition(".")[0]]
        for key, (ours, _, _) in FIELDS.items():
            found, expected = getattr(row, ours), record[key]
            if key == "gsd":
                assert found.tolist() == [expected] * 2
            elif key == "timestamp":
                assert found == pd.Timestamp(expected)
            else:
                assert found == expected, ours
        place = outline(record)
        if place is None:
            assert row.geometry is None
            assert row.location is None
            continue
        west, south, east, north = place.bounds
        assert row.geometry.bounds == pytest.approx(place.bounds, rel=0, abs=1e-7)
        assert row.geometry.is_valid
        centre = [(west + east) / 2, (south + north) / 2]
        assert row.location.tolist() == pytest.approx(centre, rel=0, abs=1e-7)
    assert frame.geometry.notna().sum() == sum("raw_location" in r for r in records.values()) > 20


def test_tiles_know_their_places_on_the_ground(model, tmp_path):
    geotiff(picture(96, 64), None, tmp_path / "utm.tif")  # zone 33 N, 10 m
    out = tmp_path / "e.parquet"
    options = {"tile": 32}
    embed_files(model, [tmp_path], out, options=options, progress=False, announce=lambda _: None)
    frame = geopandas.read_parquet(out)
    assert len(frame) == 6
    metres = frame.geometry.to_crs("EPSG:32633")
    for geometry, x, y in zip(metres, frame["x"], frame["y"], strict=True):
        west, north = 500_000 + 10 * x, 5_000_000 - 10 * y
        assert geometry.bounds == pytest.approx((west, north - 320, west + 320, north), abs=0.02)
    area = shapely.union_all(metres.to_numpy()).area
    assert area == pytest.approx(960 * 640, rel=1e-4)


def test_duckdb_compares_vectors_and_filters_by_metadata(model, tmp_path):
    for i in range(12):
        values = picture(40, 40) // (i + 1)
        geotiff(values, {None: {"cloud_cover": str(i)}}, tmp_path / f"{i:02d}.tif")
    out = tmp_path / "e.parquet"
    embed_files(model, [tmp_path], out, progress=False, announce=lambda _: None)
    table = EmbeddingTable.open(out)
    images = table.images().astype(np.float64)
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    width = table.image_width
    query = (
        f"SELECT a.id, array_cosine_similarity(a.image::FLOAT[{width}], b.image::FLOAT[{width}]) "
        f"FROM '{out}' a, '{out}' b WHERE b.path LIKE '%03.tif' AND a.cloud_cover < 7 "
        "ORDER BY a.id"
    )
    with duckdb.connect() as connection:
        found = connection.sql(query).fetchall()
    assert len(found) == 7
    expected = (images @ images[3])[:7]
    np.testing.assert_allclose([cosine for _, cosine in found], expected, atol=1e-5)
