"""Any table at all: every row is used or counted, or the table is rejected."""

import csv
import io
import json
import pickle
import re
import unicodedata
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from satmip_jax.metadata.record import Problems
from satmip_jax.sources.base import SourceError
from satmip_jax.sources.cells import MISSING
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
    name=st.sampled_from(["t.csv", "t.jsonl", "t.parquet", "t.csv.gz", "t.geojson"]),
    head=st.sampled_from(
        [
            b"",
            b"path,label\n",
            b'{"path": "a.png"}\n',
            b"PAR1",
            b'[{"path": "a.png"},',
            b'{"type": "FeatureCollection", "features": [',
            b"\xff\xfe",
            "path;gsd\na.png;0,5\n".encode("utf-16"),
        ]
    ),
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


# --- no value is invented -------------------------------------------------------------------------

words = st.sampled_from([*sorted(MISSING), "NA", "0,5", "1,500", "2.5", "7", "DE", "DEU", "é", "-"])
cells = words | st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8).map(
    str.strip
)


def expected_cell(text: str, namibia: bool) -> str | None:
    """Return the only text that a cell may give: its own, or none."""
    missing = not text or text in MISSING or (text == "NA" and not namibia)
    return None if missing else unicodedata.normalize("NFC", text)


@given(
    rows=st.lists(st.tuples(cells, cells, cells), min_size=1, max_size=5),
    codec=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le"]),
    delimiter=st.sampled_from(";\t,"),
)
@settings(fuzz, max_examples=50)
def test_cells_are_read_as_they_are_or_missing(rows, codec, delimiter, tmp_path):
    names = [f"{i}.png" for i in range(len(rows))]
    root = write_images(tmp_path / "images", names)
    header = ("path", "label", "sensor_platform", "gsd")
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter)
    writer.writerows([header, *((n, *row) for n, row in zip(names, rows, strict=True))])
    (tmp_path / "t.csv").write_bytes(out.getvalue().encode(codec))
    source = Folder([root], tmp_path / "t.csv")
    refs = {ref.id: ref for ref in source.refs()}
    numbers = [row[2] for row in rows if expected_cell(row[2], False)]
    commas = delimiter != "," and any(re.fullmatch(r"[+-]?[0-9]*,[0-9]+", n) for n in numbers)
    commas &= all(re.fullmatch(r"[+-]?[0-9]*,[0-9]+|[+-]?[0-9]+", n) for n in numbers)
    for name, (label, platform, gsd) in zip(names, rows, strict=True):
        example = source.read(refs[name], Problems())
        assert example.label == expected_cell(label, False)
        assert example.metadata.values.get("sensor_platform") in (
            expected_cell(platform, False),
            platform,
            None,
        )
        if (numbers_read := example.metadata.numbers("gsd")) is not None:
            assert numbers_read[0] == float(gsd.replace(",", ".") if commas else gsd)
    assert len(refs) == len(rows)


@fuzz
@given(
    labels=st.lists(st.text("aäöüßéñ", min_size=1, max_size=3), min_size=3, max_size=3),
    damage=st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=2),
)
def test_labels_in_any_encoding_are_never_merged(labels, damage, tmp_path):
    names = [f"{i}.png" for i in range(3)]
    root = write_images(tmp_path / "images", names)
    text = "\n".join(["path,label", *(f"{n},{t}" for n, t in zip(names, labels, strict=True))])
    data = bytearray(text.encode("cp1252"))
    for position, value in damage:
        data[position % len(data)] = value
    (tmp_path / "t.csv").write_bytes(data)
    try:
        source = Folder([root], tmp_path / "t.csv")
        refs = source.refs()
    except SourceError:
        assert damage
        return
    read = [source.read(ref, Problems()).label for ref in refs]
    assert not any("\ufffd" in (label or "") for label in read)
    if not damage:
        assert read == labels
