"""Which source reads an input."""

import json
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from satmip_jax.sources.base import SourceError
from satmip_jax.sources.detect import detect

STAC = json.dumps({"type": "Feature", "stac_version": "1.0.0", "id": "a"})
TABLE = "path,gsd\na.png,1\n"


def make(folder, files):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.mark.parametrize(
    ("files", "source"),
    [
        ({"a.png": "", "x/b.tif": ""}, "images"),
        ({"a.png": "", "m.csv": TABLE}, "folder"),
        ({"a.png": "", "m.csv": "when,gsd\n1,2\n"}, "images"),
        ({"a.png": "", "a.csv": TABLE, "metadata.csv": TABLE}, "folder"),
        ({"a.png": "", "x/m.csv": TABLE}, "images"),
        ({"a.png": "", "a.json": "{}", "b.json": "["}, "images"),
        ({"a.png": "", "x/a.json": STAC}, "stac"),
        ({"catalog.json": '{"type": "Catalog", "stac_version": "1.1.0"}'}, "stac"),
        ({"s.json": f'{{"type": "FeatureCollection", "features": [{STAC}]}}'}, "stac"),
        ({"a.png": "", "m.json": '[{"path": "a.png"}]'}, "folder"),
    ],
)
def test_folders(tmp_path, files, source):
    (found,) = detect([make(tmp_path / "d", files)])
    assert found.source == source
    assert found.paths[0] == tmp_path / "d"


def test_a_mixture_of_inputs(tmp_path):
    make(tmp_path, {"a.png": "", "b.tif": "", "item.json": STAC, "d/x.png": "", "e/x.png": ""})
    for name, members in (("z.zip", ["x.png"]), ("s.zip", ["i.json"])):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for member in members:
                archive.writestr(member, STAC)
    names = ["a.png", "d", "item.json", "z.zip", "b.tif", "s.zip", "e", "a.png"]
    found = detect([tmp_path / name for name in names])
    assert [(one.source, [path.name for path in one.paths]) for one in found] == [
        ("images", ["a.png", "b.tif"]),
        ("images", ["d"]),
        ("images", ["z.zip"]),
        ("images", ["e"]),
        ("stac", ["item.json"]),
        ("stac", ["s.zip"]),
    ]


def test_a_table_belongs_to_all_images(tmp_path):
    make(tmp_path, {"a.png": "", "d/x.png": "", "m.csv": TABLE, "item.json": STAC})
    paths = [tmp_path / name for name in ("a.png", "d", "m.csv", "item.json")]
    table, stac = detect(paths)
    assert (table.source, set(table.paths)) == ("folder", set(paths[:3]))
    assert stac.source == "stac"
    (alone,) = detect([tmp_path / "m.csv"])
    assert set(alone.paths) == {tmp_path / "m.csv", tmp_path}
    (elsewhere,) = detect([tmp_path / "d"], with_table=True)
    assert elsewhere.source == "folder"


def test_a_file_of_embeddings_is_no_table(tmp_path):
    make(tmp_path, {"a.png": ""})
    table = pa.table({"path": ["a.png"]}).replace_schema_metadata({"satmip": "{}"})
    pq.write_table(table, tmp_path / "e.parquet")
    assert [found.source for found in detect([tmp_path])] == ["images"]


@pytest.mark.parametrize(
    ("files", "name", "message"),
    [
        ({}, "none.png", "no file or folder at"),
        ({"a.txt": ""}, "a.txt", "expected an image"),
        ({"d/a.csv": TABLE, "d/b.csv": TABLE}, "d", r"several tables \(a.csv, b.csv\)"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(tmp_path, files, name, message):
    make(tmp_path, files)
    with pytest.raises(SourceError, match=message):
        detect([tmp_path / name])


@settings(max_examples=100, deadline=None)
@given(
    name=st.sampled_from(
        ["a.json", "m.csv", "m.parquet", "z.zip", "s.geojson", "a.png", "x.jsonl", "m.csv.gz"]
    ),
    content=st.one_of(st.binary(max_size=200), st.text(max_size=80).map(str.encode)),
)
def test_any_content_is_detected_or_refused(tmp_path_factory, name, content):
    folder = Path(tmp_path_factory.mktemp("any"))
    (folder / name).write_bytes(content)
    for path in (folder, folder / name):
        try:
            assert detect([path])
        except SourceError as error:
            assert "\n" not in str(error)  # noqa: PT017
