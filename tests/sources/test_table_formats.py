"""Encodings of text, JSON arrays and GeoJSON."""

import json

import pytest

from satmip_jax.sources import json_rows, text_encoding
from satmip_jax.sources.base import SourceError
from satmip_jax.sources.folder import Folder
from satmip_jax.sources.tables import Table
from tests.sources.pictures import read_all, write_images

TEXT = "path,label\na.png,Wäld\nb.png,Wöld\nc.png,Grün – €\n"
LABELS = ("Grün – €", "Wäld", "Wöld")


@pytest.fixture
def root(tmp_path):
    return write_images(tmp_path / "images", ["a.png", "b.png", "c.png"])


@pytest.mark.parametrize(
    ("codec", "notice"),
    [
        ("utf-8", ""),
        ("utf-8-sig", ""),
        ("cp1252", "encoding: Windows-1252 (cp1252)"),
        ("utf-16", "encoding: UTF-16"),
        ("utf-16-le", "encoding: UTF-16-LE"),
        ("utf-16-be", "encoding: UTF-16-BE"),
        ("utf-32", "encoding: UTF-32"),
    ],
)
def test_encodings_are_detected_and_reported(codec, notice, root, tmp_path):
    (tmp_path / "t.csv").write_bytes(TEXT.encode(codec))
    source = Folder([root], tmp_path / "t.csv")
    assert source.classes == LABELS
    assert {example.label for example in read_all(source)[0].values()} == set(LABELS)
    reported = [line for line in source.summary if line.startswith("encoding")]
    assert [line[: len(notice)] for line in reported] == ([notice] if notice else [])


def test_any_position_of_the_first_odd_byte(tmp_path, monkeypatch):
    monkeypatch.setattr(text_encoding, "_CHUNK", 8)
    for n in range(20):
        for text, codec in (("é", "utf-8"), ("é", "cp1252"), ("é€", "utf-8"), ("é", "utf-8-sig")):
            (tmp_path / "t.csv").write_bytes(("x" * n + text + "\n").encode(codec))
            assert text_encoding.detect(tmp_path / "t.csv").codec == codec


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("a.png,Лес\n".encode("cp1251") * 2, None),  # three letters might be Windows-1252
        ("a.png,Пашня\n".encode("cp1251"), "line 2 is not UTF-8, and the file is neither "),
        ("a.png,森林\n".encode("gbk"), "mixed text encodings: line 2"),
        ("a.png,森林\n".encode("shift-jis"), "mixed text encodings: line 2"),
        (b"a.png,x\nb.png,W\x81ld\n", "mixed text encodings: line 3.* save the table as UTF-8"),
        ("a.png,Wäld\n".encode() + b"b.png,W\xf6ld\n", "mixed text encodings: line 3 is not UTF-8"),
    ],
)
def test_other_encodings_are_rejected(data, message, root, tmp_path):
    (tmp_path / "t.csv").write_bytes(b"path,label\n" + data)
    if message is None:
        assert "cp1252" in " ".join(Folder([root], tmp_path / "t.csv").summary)
        return
    with pytest.raises(SourceError, match=message) as error:
        Folder([root], tmp_path / "t.csv")
    assert "t.csv" in str(error.value)


def test_one_damaged_line_of_json_is_counted(root, tmp_path):
    lines = ['{"path": "a.png", "label": "Wäld"}'.encode(), b'{"path": "b.png", "label": "W\xf6"}']
    (tmp_path / "t.jsonl").write_bytes(b"\n".join(lines))
    source = Folder([root], tmp_path / "t.jsonl")
    assert source.classes == ("Wäld",)
    source.refs()
    assert source.skipped["row that is not a JSON object on one line"] == 1


@pytest.mark.parametrize(
    "text",
    [
        "sep=;\r\npath;label\r\na.png;x\r\nb.png;y, z\r\n",  # as Excel reads and writes it
        "SEP=|\npath|label\na.png|x\nb.png|y, z\n",
        'path,label\ra.png,x\rb.png,"y, z"\r',  # line ends of old Macs, and of Excel for Mac
        "sep=\t\rpath\tlabel\ra.png\tx\rb.png\ty, z",
    ],
)
@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "utf-16"])
def test_csv_of_spreadsheets(text, codec, root, tmp_path):
    (tmp_path / "t.csv").write_bytes(text.encode(codec))
    found, _ = read_all(Folder([root], tmp_path / "t.csv"))
    assert {name: example.label for name, example in found.items()} == {
        "a.png": "x",
        "b.png": "y, z",
    }


# --- JSON -----------------------------------------------------------------------------------------

ROWS = [
    {"path": f"{c}.png", "label": label} for c, label in zip("abc", ("x", "y", "ä"), strict=True)
]


@pytest.mark.parametrize("chunk", [1, 7, 1 << 16])
@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("codec", ["utf-8", "utf-16"])
def test_a_json_array(chunk, indent, codec, root, tmp_path, monkeypatch):
    monkeypatch.setattr(json_rows, "_CHUNK", chunk)
    text = json.dumps([*ROWS, 7, [1]], indent=indent, ensure_ascii=False)
    (tmp_path / "t.json").write_bytes(text.encode(codec))
    source = Folder([root], tmp_path / "t.json")
    found, _ = read_all(source)
    assert [example.label for example in found.values()] == ["x", "y", "ä"]
    assert source.skipped == {"element that is not a JSON object": 2}


def feature(name: str, geometry: object) -> dict:
    return {"type": "Feature", "id": name, "properties": {"path": name}, "geometry": geometry}


@pytest.mark.parametrize("indent", [None, 1])
def test_geojson(indent, root, tmp_path):
    collection = {
        "type": "FeatureCollection",
        "name": "tiles",
        "crs": {"type": "name", "properties": {"name": "urn:ogc:def:crs:OGC:1.3:CRS84"}},
        "features": [
            feature("a.png", {"type": "Point", "coordinates": [11.5, 48.1, 520.0]}),
            feature("b.png", None),
            feature("c.png", {"type": "Polygon", "coordinates": [[[0, 0], [1, 1], [0, 0]]]}),
        ],
    }
    (tmp_path / "t.geojson").write_text(json.dumps(collection, indent=indent))
    source = Folder([root], tmp_path / "t.geojson", "id=id")
    found, problems = read_all(source)
    assert list(found) == ["a.png", "b.png", "c.png"]
    assert found["a.png"].metadata.values == {"location": (11.5, 48.1)}
    assert problems.to_json()["location"] == {"missing": 1, "wrong type": 1}
    assert "columns: id <- id, path <- path, location <- geometry" in source.summary
    collection["crs"]["properties"]["name"] = "urn:ogc:def:crs:EPSG::3857"
    (tmp_path / "t.geojson").write_text(json.dumps(collection, indent=indent))
    with pytest.raises(SourceError, match=r"t\.geojson: .*EPSG::3857.*convert it to longitude"):
        Folder([root], tmp_path / "t.geojson")


def test_geojson_beside_another_table_is_not_the_table(root):
    (root / "area.geojson").write_text('{"type": "FeatureCollection", "features": []}')
    (root / "t.csv").write_text("path\na.png\n")
    assert Folder([root]).table.name == "t.csv"


@pytest.mark.parametrize(
    "text",
    [
        '[{"path": "a.png"}',
        '[{"path": "a.png"},]',
        '[{"path": "a.png"}] x',
        '[{"path": "a.png"} {"path": "b.png"}]',
        '[{"path": ' + "[" * 100_000 + "]",
        '{"type": "FeatureCollection", "features": [{"type": "Feature"}',
        '{"type": "FeatureCollection",\n "features": 7}',
    ],
)
def test_damaged_json_is_rejected(text, root, tmp_path):
    (tmp_path / "t.json").write_text(text)
    with pytest.raises(SourceError, match=r"t\.json"):
        Folder([root], tmp_path / "t.json")


def test_elements_of_arrays_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(json_rows, "MAX_LINE", 1000)
    monkeypatch.setattr(json_rows, "_CHUNK", 100)
    monkeypatch.setattr(json_rows, "MAX_NAMES", 3)
    text = json.dumps([{"path": "a.png", "x": "y" * 3000}])
    (tmp_path / "t.json").write_text(text)
    with pytest.raises(SourceError, match="longer than 1,000 characters"):
        Table(tmp_path / "t.json")
    (tmp_path / "t.json").write_text(json.dumps([{str(i): 1} for i in range(9)]))
    with pytest.raises(SourceError, match="more than 3 columns"):
        Table(tmp_path / "t.json")


@pytest.mark.parametrize(
    "table",
    [
        {"path": {"0": "a.png"}, "label": {"0": "x"}},  # as pandas writes it by default
        {"columns": ["path"], "index": [0], "data": [["a.png"]]},
        {"a.png": {"label": "x"}},
        {"images": [{"file_name": "a.png"}], "annotations": []},  # COCO
    ],
)
def test_json_of_one_object_says_what_to_write(table, root, tmp_path):
    (tmp_path / "t.json").write_text(json.dumps(table))
    with pytest.raises(SourceError, match=r"t\.json: .*one object per row, .*orient=\"records\""):
        Folder([root], tmp_path / "t.json")
