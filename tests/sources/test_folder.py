"""Any images with any table: formats, columns, splits, and tables and folders that mean harm."""

import csv
import gzip
import io
import json
import pickle
import zipfile
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from satmip_jax.data import images
from satmip_jax.metadata.record import Problems
from satmip_jax.sources import folder, tables
from satmip_jax.sources.base import Source, SourceError, UnreadableExample
from satmip_jax.sources.eurosat import EuroSAT
from satmip_jax.sources.folder import Folder
from satmip_jax.sources.registry import open_source


def picture(value: int = 0, format: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (value % 256, 60, 90)).save(file, format)
    return file.getvalue()


def write_images(root: Path, names) -> Path:
    for i, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(i))
    return root


def write_csv(path: Path, rows: list[dict]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def read_all(source: Folder) -> tuple[dict, Problems]:
    problems = Problems()
    return {ref.id: source.read(ref, problems) for ref in source.refs()}, problems


# --- real images ----------------------------------------------------------------------------------

EUROSAT_COLUMNS = "path=filename,location=longitude+latitude"


@pytest.fixture
def eurosat_part(real_data, tmp_path):
    """Sixty chips of EuroSAT: a zip of them, their rows, and the source that knows EuroSAT."""
    csv_file, archive = (
        real_data / "eurosat" / name for name in ("eurosat_metadata.csv", "eurosat_val.zip")
    )
    with zipfile.ZipFile(archive) as whole, zipfile.ZipFile(tmp_path / "chips.zip", "w") as part:
        names = [name for name in whole.namelist() if name.endswith(".jpg")][::68]
        for name in names:
            part.writestr(name, whole.read(name))
    wanted = {name.partition("/")[2] for name in names}
    with csv_file.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["filename"] in wanted]
    return tmp_path / "chips.zip", rows, EuroSAT([tmp_path / "chips.zip"], metadata=csv_file)


def test_eurosat_through_columns(eurosat_part, tmp_path):
    archive, rows, eurosat = eurosat_part
    table = write_csv(tmp_path / "table.csv", rows)
    source = open_source("folder", [archive], metadata=str(table), columns=EUROSAT_COLUMNS)
    assert isinstance(source, Source)
    found, problems = read_all(source)
    assert len(found) == len(rows) == 60
    assert not source.skipped
    assert set(source.classes) == {row["label"] for row in rows}
    assert problems.count("country_code") == sum(not row["country_code"] for row in rows)
    expected = {ref.id: eurosat.read(ref, Problems()) for ref in eurosat.refs()}
    for key, example in found.items():
        theirs = expected[key.removeprefix("EuroSAT_RGB/")]
        assert (example.image, example.label) == (theirs.image, theirs.label)
        for name in ("location", "country_code"):
            assert example.metadata.values.get(name) == theirs.metadata.values.get(name)
        assert images.decode_square(example.image, 64).std() > 0
    assert Counter(ref.split for ref in source.refs()) == Counter(row["split"] for row in rows)
    assert json.loads(json.dumps(source.options)) == source.options


# --- tables ---------------------------------------------------------------------------------------

ROWS = [
    {
        "file": f"d/{i:03}.png",
        "class": ("7", "11", "100")[i % 3],
        "lon": i - 5.5,
        "lat": None if i == 4 else 40.25,
        "datetime_utc": f"2015-09-{i + 1:02}T15:30:08Z",
        "satellite": "GEOEYE01",
        "part": "train" if i < 8 else "val",
    }
    for i in range(10)
]
COLUMNS = (
    "path=file, label=class, location=lon+lat, timestamp=datetime_utc,sensor_platform=satellite,"
    "split=part"
)


def as_csv(path, rows, delimiter=","):
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    path.write_text("\ufeff" + out.getvalue(), encoding="utf-8")


def as_parquet(path, rows):
    frame = {name: [row[name] for row in rows] for name in rows[0]}
    frame["datetime_utc"] = pa.array(
        [datetime.fromisoformat(text) for text in frame["datetime_utc"]], pa.timestamp("ns", "UTC")
    )
    frame["class"] = [float(text) for text in frame["class"]]  # as pandas does to labels with gaps
    frame["lat"] = [np.nan if v is None else v for v in frame["lat"]]
    pq.write_table(pa.table(frame), path)


FORMATS = {
    "table.csv": as_csv,
    "semicolons.csv": lambda path, rows: as_csv(path, rows, ";"),
    "table.tsv": lambda path, rows: as_csv(path, rows, "\t"),
    "table.csv.gz": lambda path, rows: (
        as_csv(path, rows),
        path.write_bytes(gzip.compress(path.read_bytes())),
    ),
    "table.jsonl": lambda path, rows: path.write_text("\n".join(map(json.dumps, rows)) + "\n\n"),
    "table.parquet": as_parquet,
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_says_the_same(name, tmp_path):
    root = write_images(tmp_path / "images", [row["file"] for row in ROWS])
    FORMATS[name](tmp_path / name, ROWS)
    source = Folder([root], metadata=tmp_path / name, columns=COLUMNS)
    found, problems = read_all(source)
    assert list(found) == [row["file"] for row in ROWS]
    assert source.classes == ("7", "11", "100")  # as numbers
    assert not source.skipped
    first = found["d/000.png"]
    assert first.image == (root / "d/000.png").read_bytes()
    assert first.label == "7"
    assert first.metadata.values == {
        "location": (-5.5, 40.25),
        "timestamp": datetime(2015, 9, 1, 15, 30, 8, tzinfo=UTC),
        "sensor_platform": "GEOEYE01",
    }
    assert problems.to_json()["location"] == {"missing": 1}
    assert "timestamp" not in problems.to_json()
    assert [ref.split for ref in source.refs()] == ["train"] * 8 + ["val"] * 2


def test_a_column_of_paths_is_enough(tmp_path):
    root = write_images(tmp_path / "images", ["a.png", "b.png"])
    write_csv(root / "metadata.csv", [{"file_name": "a.png"}, {"file_name": "./b.png"}])
    (root / "other.csv").write_text("x\n")  # `metadata.*` comes first
    source = Folder([root])
    found, _ = read_all(source)
    assert list(found) == ["a.png", "b.png"]
    assert {example.label for example in found.values()} == {None}
    assert source.classes == ()
    assert {ref.split for ref in source.refs()} == {"train"}


def test_columns_with_our_names_need_no_mention_and_can_be_left_out(tmp_path):
    root = write_images(tmp_path / "images", ["a.png"])
    row = {"path": "a.png", "longitude": 1, "latitude": 2, "gsd": 0.5, "cloud_cover": 3, "x+y": 9}
    table = write_csv(tmp_path / "t.csv", [row])

    def values(columns):
        return read_all(Folder([root], table, columns))[0]["a.png"].metadata.values

    assert values("") == {"location": (1, 2), "gsd": (0.5, 0.5), "cloud_cover": (3,)}
    assert values("gsd=,location=") == {"cloud_cover": (3,)}
    assert values("gsd=gsd+cloud_cover")["gsd"] == (0.5, 3)
    assert values("off_nadir_angle=x+y")["off_nadir_angle"] == (9,)  # a name with a plus
    assert values({"gsd": ("cloud_cover", "gsd")})["gsd"] == (3, 0.5)


def test_lists_and_odd_values_in_cells(tmp_path):
    root = write_images(tmp_path / "images", [f"{i}.png" for i in range(3)])
    rows = [
        {"path": "0.png", "wavelengths": [661, 545, 477], "timestamp": 5, "gsd": "\ud800"},
        {"path": "1.png", "wavelengths": [1] * 99, "timestamp": {"a": 1}, "gsd": float("inf")},
        {"path": "2.png", "wavelengths": None, "timestamp": "", "gsd": float("nan")},
    ]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found, problems = read_all(Folder([root], tmp_path / "t.jsonl"))
    assert found["0.png"].metadata.values == {"wavelengths": (661.0, 545.0, 477.0)}
    assert problems.to_json()["wavelengths"] == {"missing": 1, "wrong type": 1}
    assert problems.to_json()["timestamp"] == {"missing": 1, "wrong type": 2}
    assert problems.to_json()["gsd"] == {"missing": 1, "not finite": 1, "wrong type": 1}


def test_times_that_python_does_not_have(tmp_path):
    root = write_images(tmp_path / "images", ["a.png", "b.png"])
    times = pa.array([0, 2**62], pa.timestamp("us"))
    pq.write_table(
        pa.table({"path": ["a.png", "b.png"], "timestamp": times}), tmp_path / "t.parquet"
    )
    found, problems = read_all(Folder([root], tmp_path / "t.parquet"))
    assert found["a.png"].metadata.values["timestamp"] == datetime(1970, 1, 1, tzinfo=UTC)
    assert problems.count("timestamp", "wrong type") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"columns": "path=nofile"}, "no column 'nofile' for path; it has file, class, lon"),
        ({"columns": "path=file,speed=lon"}, "no metadata field 'speed'; choose from gsd, .*path"),
        ({"columns": "path=file,location=lon+lat+lon"}, "location takes 1 column or 2, not 3"),
        ({"columns": "path=file,timestamp=lon+lat"}, "timestamp takes 1 column, not 2"),
        ({"columns": "path"}, "--columns: cannot read 'path': write field=column"),
        ({"columns": "path=file,path=file"}, "given twice"),
        ({"columns": "path="}, 'no column of image paths: .*--columns "path='),
        (
            {"columns": COLUMNS, "splits": "train=1"},
            "either a split column .*or shares \\(--splits\\), not both",
        ),
        ({"columns": "path=file", "splits": "train=0.8,val=0.1"}, "add up to 0.9"),
        ({"columns": "path=file", "splits": "train"}, "--splits: cannot read 'train'"),
        ({"columns": "path=file", "splits": "a=2,b=-1"}, "cannot read 'a=2'"),
        ({"columns": "path=file", "splits": "../x=1"}, "cannot read '../x=1'"),
        ({"metadata": "nowhere.csv"}, "no table at nowhere.csv"),
        ({"metadata": None}, "no table in .* with --metadata"),
    ],
)
def test_options_that_cannot_work(options, message, tmp_path):
    root = write_images(tmp_path / "images", ["d/000.png"])
    table = write_csv(tmp_path / "table.csv", ROWS)
    with pytest.raises(SourceError, match=message):
        Folder([root], **{"metadata": table, **options})


def test_several_tables(tmp_path):
    root = write_images(tmp_path / "images", ["a.png"])
    for name in ("a.csv", "b.jsonl"):
        (root / name).write_text("path\na.png\n")
    with pytest.raises(SourceError, match=r"several tables \(a.csv, b.jsonl\)"):
        Folder([root])
    assert len(Folder([root, root / "a.csv"]).refs()) == 1  # named among the paths


def test_nothing_fits(tmp_path):
    root = write_images(tmp_path / "images", ["a/b.png"])
    table = write_csv(tmp_path / "t.csv", [{"path": "c.png"}])
    message = r"none of the 1 rows .*1 x row without an image.*'path' should look like 'a/b.png'"
    with pytest.raises(SourceError, match=message):
        Folder([root], table).refs()


# --- splits ---------------------------------------------------------------------------------------


def splits_of(tmp_path, names, **options):
    table = write_csv(tmp_path / "t.csv", [{"path": name} for name in names])
    source = Folder([tmp_path / "images"], table, **options)
    return {ref.id: ref.split for ref in source.refs()}


def test_shares(tmp_path):
    names = [f"{i}.png" for i in range(1500)]
    (tmp_path / "images").mkdir()
    for name in names:
        (tmp_path / "images" / name).touch()
    options = {"splits": "train=0.7, val=0.2,test=0.1", "seed": 3}
    all_rows = splits_of(tmp_path, names, **options)
    sizes = Counter(all_rows.values())
    for name, share in (("train", 0.7), ("val", 0.2), ("test", 0.1)):
        assert abs(sizes[name] / 1500 - share) < 4 * np.sqrt(share * (1 - share) / 1500)
    fewer = splits_of(tmp_path, names[900:200:-1], **options)
    assert fewer.items() <= all_rows.items()  # fewer rows, in another order
    assert splits_of(tmp_path, names, **{**options, "seed": 4}) != all_rows


# --- broken and hostile data ----------------------------------------------------------------------


def test_bad_rows_are_counted_and_left_out(tmp_path):
    root = write_images(
        tmp_path / "images", ["a.png", "b.png", "c.png", "x/same.png", "y/same.png", "x/one.png"]
    )
    (root / "notes.txt").write_text("not an image, not counted")
    rows = [
        ("a.png", "A", "train"),
        ("a.png", "A", "train"),
        ("./x//one.png", "B", "val"),
        ("gone.png", "B", "val"),
        ("same.png", "B", "val"),
        ("", "B", "val"),
        ("b.png", "B", ""),
        ("c.png", "B", "../../evil"),
        ("x/same.png", "L" * 500, "val"),
    ]
    keys = ("path", "label", "split")
    table = write_csv(tmp_path / "t.csv", [dict(zip(keys, row, strict=True)) for row in rows])
    with table.open("a") as file:
        file.write("too,many,columns,here\nfew\n")
    source = Folder([root], table)
    assert [ref.id for ref in source.refs()] == ["a.png", "x/one.png"]
    assert source.skipped == {
        "another row of the same image": 1,
        "row without an image": 1,
        "row whose path fits several images": 1,
        "row without a path": 1,
        "row without a split": 1,
        "row with an unusable split": 1,
        "label of more than 128 characters": 1,
        "row with too few or too many columns": 2,
        "image without a row": 1,  # y/same.png
    }
    assert source.refs() == source.refs()
    assert sum(source.skipped.values()) == 10  # counted once, however often it is listed


def test_ids_from_a_column(tmp_path):
    root = write_images(tmp_path / "images", ["a.png", "b.png", "c.png"])
    rows = [{"path": f"{c}.png", "scene": s} for c, s in (("a", "s1"), ("b", "s1"), ("c", ""))]
    source = Folder([root], write_csv(tmp_path / "t.csv", rows), "id=scene")
    assert [ref.id for ref in source.refs()] == ["s1"]
    assert source.skipped["another row of the same id"] == 1
    assert source.skipped["row without an id"] == 1


@pytest.mark.parametrize(
    "path",
    [
        "../secret.png",
        "in/../../secret.png",
        "..\\secret.png",
        "{absolute}",
        "C:\\secret.png",
        "//server/secret.png",
        "in/a.png\0../secret.png",
    ],
)
def test_no_path_leads_out_of_the_folder(path, tmp_path):
    root = write_images(tmp_path / "images", ["in/a.png"])
    (tmp_path / "secret.png").write_bytes(picture(1))
    path = path.format(absolute=tmp_path / "secret.png")
    (tmp_path / "t.jsonl").write_text(
        "\n".join(json.dumps({"path": p}) for p in ("in/a.png", path))
    )
    source = Folder([root], tmp_path / "t.jsonl")
    assert [ref.id for ref in source.refs()] == ["in/a.png"]
    assert source.skipped == {"path that leads out of its folder": 1}


def test_no_link_leads_out_of_the_folder(tmp_path):
    root = write_images(tmp_path / "images", ["a.png", "inner/b.png"])
    outside = write_images(tmp_path / "outside", ["secret.png"])
    (root / "link.png").symlink_to(outside / "secret.png")
    (root / "inside.png").symlink_to(root / "a.png")
    (root / "folder").symlink_to(outside)
    rows = [{"path": p} for p in ("a.png", "link.png", "inside.png", "folder/secret.png")]
    source = Folder([root], write_csv(tmp_path / "t.csv", rows))
    assert [ref.id for ref in source.refs()] == ["a.png", "inside.png"]
    assert source.skipped == {
        "symbolic link that leads out of its folder": 1,
        "folder that is a symbolic link": 1,
        "row without an image": 2,
        "image without a row": 1,
    }


@pytest.fixture
def archive(tmp_path):
    path = tmp_path / "chips.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("top/a.png", picture(1))
        file.writestr("top/zeros.png", bytes(200_000))
        file.writestr("../evil.png", picture(2))
        file.writestr("/etc/evil.png", picture(2))
        file.writestr("top/broken.png", picture(3))
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as file:
        start = file.getinfo("top/broken.png").header_offset + 30 + len("top/broken.png")
    data[start + 20] ^= 0xFF
    path.write_bytes(data)
    return path


def test_zips_are_read_in_place_and_bounded(archive, tmp_path, monkeypatch):
    names = ("a.png", "zeros.png", "broken.png", "evil.png")
    write_csv(tmp_path / "t.csv", [{"path": name} for name in names])
    before = sorted(tmp_path.rglob("*"))
    source = pickle.loads(pickle.dumps(Folder([archive], tmp_path / "t.csv")))
    refs = {ref.id: ref for ref in source.refs()}
    assert list(refs) == ["top/a.png", "top/broken.png", "top/zeros.png"]
    assert source.skipped == {
        "zip member whose path leads out of the zip": 2,
        "row without an image": 1,
    }
    assert source.read(refs["top/a.png"], Problems()).image == picture(1)
    with pytest.raises(UnreadableExample, match="damaged zip member"):
        source.read(refs["top/broken.png"], Problems())
    monkeypatch.setattr(folder, "MAX_IMAGE_BYTES", 100_000)
    with pytest.raises(UnreadableExample, match="more than 100,000 bytes"):
        source.read(refs["top/zeros.png"], Problems())
    pickle.dumps(source)  # with its zip open
    assert sorted(tmp_path.rglob("*")) == before
    archive.write_bytes(b"PK not a zip")
    with pytest.raises(SourceError, match="cannot be read as a zip"):
        Folder([archive], tmp_path / "t.csv").refs()


def test_the_same_path_in_two_places(tmp_path):
    for name in ("one", "two"):
        write_images(tmp_path / name, ["a.png", f"{name}.png"])
    rows = [{"path": p} for p in ("a.png", "one.png", "two.png")]
    source = Folder([tmp_path / "one", tmp_path / "two"], write_csv(tmp_path / "t.csv", rows))
    found, _ = read_all(source)
    assert found["a.png"].image == (tmp_path / "one" / "a.png").read_bytes()
    assert len(found) == 3
    assert source.skipped == {"file of the same path as another": 1}


def test_a_file_that_goes_away_is_one_bad_example(tmp_path):
    root = write_images(tmp_path / "images", ["a.png"])
    source = Folder([root], write_csv(tmp_path / "t.csv", [{"path": "a.png"}]))
    (ref,) = source.refs()
    (root / "a.png").unlink()
    with pytest.raises(UnreadableExample, match="cannot be read"):
        source.read(ref, Problems())


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", b"", "cannot be read as csv|no column|which column"),
        ("t.parquet", b"PAR1 no", "cannot be read as parquet"),
        ("t.csv.gz", b"\x1f\x8b nothing", "cannot be read as csv"),
        ("t.jsonl", b"[1, 2]\nnull\n", "no column of image paths"),
        ("t.csv", b"path,path\na.png,a.png\n", "several columns 'path'"),
        ("t.txt", b"path\na.png\n", "not a table"),
    ],
)
def test_files_that_are_no_tables(name, content, message, tmp_path):
    root = write_images(tmp_path / "images", ["a.png"])
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match=message):
        Folder([root], tmp_path / name).refs()


def test_long_tables_and_lines_are_refused(tmp_path, monkeypatch):
    root = write_images(tmp_path / "images", ["a.png", "b.png"])
    lines = [json.dumps({"path": "a.png"}), json.dumps({"path": "b.png", "x": "y" * 3000})]
    (tmp_path / "t.jsonl").write_text("\n".join(lines))
    monkeypatch.setattr(tables, "MAX_LINE", 1000)
    source = Folder([root], tmp_path / "t.jsonl")
    assert len(source.refs()) == 1
    assert source.skipped["row that is too long"] == 1
    monkeypatch.setattr(tables, "MAX_ROWS", 1)
    write_csv(tmp_path / "t.csv", [{"path": "a.png"}, {"path": "b.png"}])
    with pytest.raises(SourceError, match="more than 1 rows"):
        Folder([root], tmp_path / "t.csv").refs()


# --- any table at all -----------------------------------------------------------------------------

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
    """The only way to fail is to say so; every row is used or counted."""
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
