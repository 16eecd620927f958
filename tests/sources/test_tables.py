"""Any table at all: every row is used or counted, or the table is rejected."""

import csv
import json
import pickle
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from satmip_jax.metadata.record import Problems
from satmip_jax.sources.base import SourceError
from satmip_jax.sources.folder import Folder
from tests.sources.pictures import write_images

fuzz = settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
texts = st.text(max_size=12) | st.sampled_from(["a.png", "d/b.png", "../x", "train", "1e999", "5"])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=4,
)
FIELD_NAMES = ("path", "label", "split", "gsd", "timestamp", "location", "country_code")


def check(path: Path, root: Path, rows: int | None = None) -> None:
    """Errors name the table; every row is used or counted."""
    try:
        source = Folder([root], path)
        refs = source.refs()
    except SourceError as error:
        message = str(error)
    else:
        message = ""
    if message:
        assert str(path) in message
        return
    unlisted = source.skipped["image without a row"]
    if rows is not None:
        assert len(refs) + sum(source.skipped.values()) - unlisted == rows
    assert len(refs) + unlisted <= 2
    for ref in refs:
        pickle.dumps(ref)
        example = source.read(ref, Problems())
        assert example.label is None or example.label in source.classes


@fuzz
@given(rows=st.lists(st.dictionaries(st.sampled_from(FIELD_NAMES), values), max_size=6))
def test_any_json_lines(rows, tmp_path):
    root = write_images(tmp_path / "images", ["a.png", "d/b.png"])
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    check(path, root, len(rows))


@fuzz
@given(rows=st.lists(st.lists(texts, min_size=3, max_size=3), max_size=6))
def test_any_csv(rows, tmp_path):
    root = write_images(tmp_path / "images", ["a.png", "d/b.png"])
    path = tmp_path / "t.csv"
    with path.open("w", newline="", encoding="utf-8", errors="replace") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows([("path", "label", "gsd"), *rows])
    check(path, root, len(rows))


@fuzz
@given(
    name=st.sampled_from(["t.csv", "t.jsonl", "t.parquet", "t.csv.gz"]),
    head=st.sampled_from([b"", b"path,label\n", b'{"path": "a.png"}\n', b"PAR1"]),
    tail=st.binary(max_size=200),
)
def test_any_bytes(name, head, tail, tmp_path):
    root = write_images(tmp_path / "images", ["a.png", "d/b.png"])
    path = tmp_path / name
    path.write_bytes(head + tail)
    check(path, root)


@fuzz
@given(changes=st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=8))
def test_any_damage_to_parquet(changes, tmp_path):
    root = write_images(tmp_path / "images", ["a.png", "d/b.png"])
    path = tmp_path / "t.parquet"
    table = pa.table({"path": ["a.png", "d/b.png"], "gsd": [1.0, None], "label": ["x", "y"]})
    pq.write_table(table, path)
    data = bytearray(path.read_bytes())
    for position, value in changes:
        data[position % len(data)] = value
    path.write_bytes(data)
    check(path, root)
