"""The file of embeddings: what is written is read; hostile files are one sentence."""

import json
import math
import subprocess
import sys
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from satmip_jax.inference.embed import table as reader
from satmip_jax.inference.embed import writer
from satmip_jax.inference.embed.geometry import geojson_wkb, point_wkb
from satmip_jax.inference.embed.table import EmbeddingTable, EmbeddingTableError
from satmip_jax.inference.embed.writer import Row, to_table, write_table
from satmip_jax.metadata.record import Metadata

RNG = np.random.default_rng(3)
INFO = {
    "version": "0.1.0",
    "model": "satmips mu/8",
    "step": 40,
    "parameters": "ab12",
    "image_size": 64,
    "fields": ["location"],
    "rendering": {},
    "inputs": {"skipped": {}, "unusable": {}},
}
FULL = {
    "gsd": [0.5, 0.25],
    "timestamp": "2018-07-01T10:11:12.123456Z",
    "location": [12.123456789012345, 41.987654321098765],
    "cloud_cover": 7.125,
    "wavelengths": [660, 545, 480],
    "sensor_platform": "WORLDVIEW02",
}


def make_rows(n):
    return [
        Row(
            f"s{i}.tif#{i},0",
            f"scenes/s{i}.tif",
            (i, 0, 64, 64) if i % 2 else None,
            "barn" if i % 3 else None,
            point_wkb(i, -i % 90) if i % 4 else None,
            Metadata.parse(FULL if i % 5 else {}).values,
        )
        for i in range(n)
    ]


@pytest.fixture
def written(tmp_path):
    """A file of 50 rows in two tables; every fifth record has no field and no vector."""
    images = RNG.normal(size=(50, 6)).astype(np.float32)
    metadata = RNG.normal(size=(50, 3)).astype(np.float32)
    metadata[::5] = np.nan
    rows = make_rows(50)
    tables = [to_table(rows[part], images[part], metadata[part]) for part in np.s_[:30, 30:]]
    path = tmp_path / "e.parquet"
    assert write_table(path, tables, INFO, geometry_types={"Point"}) == 50
    return path, rows, images, metadata


def test_what_is_written_is_read(written, monkeypatch):
    path, rows, images, metadata = written
    monkeypatch.setattr(reader, "_ROWS_AT_ONCE", 8)
    table = EmbeddingTable.open(path)
    assert (table.count, table.image_width, table.metadata_width) == (50, 6, 3)
    assert {key: table.info[key] for key in INFO} == INFO
    np.testing.assert_array_equal(table.images(), images)
    np.testing.assert_array_equal(table.metadata(), metadata)
    chosen = [49, 3, 0, 31, 3]
    for index, found in zip(chosen, table.rows(chosen), strict=True):
        row = rows[index]
        assert (found["id"], found["path"], found["label"]) == (row.id, row.path, row.label)
        window = tuple(found[name] for name in ("x", "y", "width", "height"))
        assert window == (row.window or (None,) * 4)
        assert found["geometry"] == row.geometry
        for name, value in row.values.items():
            expected = list(value) if isinstance(value, tuple) else value
            assert found[name] == (expected[0] if name == "cloud_cover" else expected), name
        assert not row.values or found["timestamp"] == datetime(
            2018, 7, 1, 10, 11, 12, 123456, tzinfo=UTC
        )
    with pytest.raises(IndexError, match="no row 50 of 50"):
        table.rows([50])


def test_row_groups_are_joined_and_batches_number_their_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "ROWS", 7)
    images = RNG.normal(size=(40, 2)).astype(np.float32)
    write_table(tmp_path / "e.parquet", [to_table(make_rows(40), images)], INFO)
    table = EmbeddingTable.open(tmp_path / "e.parquet")
    assert pq.read_metadata(tmp_path / "e.parquet").num_row_groups == 6
    for start, part in table.batches("image"):
        np.testing.assert_array_equal(part, images[start : start + len(part)])
    assert [row["path"] for row in table.rows(range(40))] == [row.path for row in make_rows(40)]
    assert table.metadata_width is None
    with pytest.raises(EmbeddingTableError, match="does not embed metadata"):
        table.metadata()
    monkeypatch.setattr(reader, "ROWS", 7)  # of a batch
    chosen = [30, 3, 39, 1, 8, 3]
    np.testing.assert_array_equal(table.vectors("image", chosen), images[chosen])
    assert table.vectors("image", []).shape == (0, 2)
    for row in (40, -1):
        with pytest.raises(IndexError, match=f"no row {row} of 40"):
            table.vectors("image", [3, row])


def test_the_file_is_geoparquet_of_the_spec(written):
    path, rows, *_ = written
    geo = json.loads(pq.read_metadata(path).metadata[b"geo"])
    assert (geo["version"], geo["primary_column"]) == ("1.1.0", "geometry")
    assert geo["columns"]["geometry"] == {"encoding": "WKB", "geometry_types": ["Point"]}
    assert pq.read_table(path)["geometry"].to_pylist() == [row.geometry for row in rows]


@pytest.mark.parametrize("turn", [-360, 0])
def test_an_outline_across_the_180th_meridian_becomes_two(turn):
    ring = [[179 + turn, -10], [181 + turn, -10], [181 + turn, 10], [179 + turn, 10]]
    found = shapely.from_wkb(geojson_wkb({"type": "Polygon", "coordinates": [[*ring, ring[0]]]}))
    expected = shapely.union(shapely.box(179, -10, 180, 10), shapely.box(-180, -10, -179, 10))
    assert found.geom_type == "MultiPolygon"
    assert found.is_valid
    assert found.equals(expected)


def test_geometries_are_those_of_another_library():
    polygon = shapely.Polygon([(0, 0), (9, 0), (9, 9), (0, 0)], [[(5, 1), (6, 1), (6, 2), (5, 1)]])
    for shape in (shapely.Point(-180, 90), polygon, shapely.MultiPolygon([polygon, polygon])):
        assert geojson_wkb(json.loads(shapely.to_geojson(shape))) == shapely.to_wkb(shape)
    assert point_wkb(12.5, 41.9) == shapely.to_wkb(shapely.Point(12.5, 41.9))


@pytest.mark.parametrize(
    "bad",
    [
        None,
        {"type": "Point", "coordinates": ["1", 2]},
        {"type": "Point", "coordinates": [math.nan, 2]},
        {"type": "Point", "coordinates": [500_000.0, 4_649_776.0]},
        {"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [1, 1]]]},
        {"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [1, 1], [2, 2]]]},
        {"type": "MultiPolygon", "coordinates": {}},
        {"type": "LineString", "coordinates": [[0, 0], [1, 1]]},
    ],
)
def test_bad_geometries_are_none(bad):
    assert geojson_wkb(bad) is None


def replace_info(path, **changes):
    table = pq.read_table(path)
    info = json.loads(table.schema.metadata[b"satmip"]) | changes
    text = {k: v for k, v in info.items() if v is not ...}
    pq.write_table(table.replace_schema_metadata({"satmip": json.dumps(text)}), path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "format 2"),
        ({"format": ...}, "format None"),
        ({"model": 7}, "model of its description is 7"),
        ({"fields": [1]}, "fields of its description"),
        ({"image_size": True}, "image_size of its description"),
        ({"inputs": ...}, "inputs of its description is None"),
    ],
)
def test_descriptions_are_checked(written, changes, message):
    path = written[0]
    replace_info(path, **changes)
    with pytest.raises(EmbeddingTableError, match=message):
        EmbeddingTable.open(path)


def test_files_of_others_are_refused(tmp_path, written):
    path = tmp_path / "other.parquet"
    path.write_text("id,image\n")
    with pytest.raises(EmbeddingTableError, match="no Parquet file"):
        EmbeddingTable.open(path)
    pq.write_table(pa.table({"id": ["a"]}), path)
    with pytest.raises(EmbeddingTableError, match="no column 'path'"):
        EmbeddingTable.open(path)
    with pytest.raises(FileNotFoundError):
        EmbeddingTable.open(tmp_path / "none.parquet")
    table = pq.read_table(written[0])
    for name, array, message in (
        ("image", table["image"].cast(pa.list_(pa.float32())), "'image' is list<"),
        ("gsd", table["label"], "'gsd' is string"),
        ("surprise", table["label"], "'surprise' is string"),
    ):
        other = table.drop(name) if name in table.column_names else table
        pq.write_table(other.append_column(name, array), path)
        with pytest.raises(EmbeddingTableError, match=message):
            EmbeddingTable.open(path)


def test_a_file_that_claims_vectors_it_cannot_hold_is_refused_before_they_are_allocated(tmp_path):
    # dictionaries and compression shrink the same vector a million times to some kilobytes
    rows = 1_000_000
    one = to_table([Row("a", "a")], np.zeros((1, 64), np.float32))
    table = pa.concat_tables([one]).take(pa.array(np.zeros(rows, np.int64)))
    info = {"satmip": json.dumps({"format": 1, **INFO})}
    path = tmp_path / "bomb.parquet"
    pq.write_table(table.replace_schema_metadata(info), path, compression="zstd")
    assert path.stat().st_size < 1 << 20
    with pytest.raises(EmbeddingTableError, match="too short for 1,000,000 vectors"):
        EmbeddingTable.open(path)


def test_row_groups_that_would_take_too_much_memory_are_refused(written, monkeypatch):
    path = written[0]
    metadata = pq.read_metadata(path)
    groups = (metadata.row_group(i) for i in range(metadata.num_row_groups))
    largest = max(group.total_byte_size for group in groups)
    monkeypatch.setattr(reader, "MAX_GROUP", largest)
    assert EmbeddingTable.open(path).count == 50
    monkeypatch.setattr(reader, "MAX_GROUP", largest - 1)
    with pytest.raises(EmbeddingTableError, match=f"a row group takes {largest:,} bytes"):
        EmbeddingTable.open(path)


@pytest.mark.slow
def test_no_damaged_byte_ends_the_process(written, tmp_path):
    """As pyarrow does for some sizes of columns; the test in this process would only vanish."""
    code = """
import random, sys
from satmip_jax.inference.embed.table import EmbeddingTable, EmbeddingTableError
path, out = sys.argv[1:]
sound, rng = open(path, "rb").read(), random.Random(0)
for _ in range(2000):
    content = bytearray(sound)
    content[rng.randrange(len(content))] = rng.choice((0, 1, 32, 255))
    open(out, "wb").write(content)
    try:
        table = EmbeddingTable.open(out)
        table.images(), table.metadata(), table.rows(range(table.count))
    except EmbeddingTableError:
        pass
"""
    command = [sys.executable, "-c", code, str(written[0]), str(tmp_path / "damaged.parquet")]
    assert subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False).stderr == ""


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damaged_files_are_one_sentence(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp()
    sound = folder / "sound.parquet"
    if not sound.exists():
        images = RNG.normal(size=(20, 4)).astype(np.float32)
        write_table(sound, [to_table(make_rows(20), images, images)], INFO)
    content = bytearray(sound.read_bytes())
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    else:
        for _ in range(data.draw(st.integers(1, 4))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = folder / "damaged.parquet"
    path.write_bytes(content)
    message = str(path)
    try:
        table = EmbeddingTable.open(path)
        table.images(), table.metadata(), table.rows(range(table.count))
    except EmbeddingTableError as error:
        message = str(error)
    assert "\n" not in message
    assert str(path) in message
