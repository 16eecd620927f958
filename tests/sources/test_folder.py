"""Any images with any table: formats, columns, splits."""

import csv
import gzip
import io
import json
import zipfile
from collections import Counter
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from satmip_jax.data import images
from satmip_jax.metadata.record import Problems
from satmip_jax.sources.base import Source, SourceError
from satmip_jax.sources.eurosat import EuroSAT
from satmip_jax.sources.folder import Folder
from satmip_jax.sources.registry import open_source
from tests.sources.pictures import read_all, write_csv, write_images

# --- real images ----------------------------------------------------------------------------------

EUROSAT_COLUMNS = "path=filename,location=longitude+latitude"


@pytest.fixture
def eurosat_part(real_data, tmp_path):
    """Sixty chips of EuroSAT: a zip of them, their rows, and the source `EuroSAT`."""
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
    frame["class"] = [float(text) for text in frame["class"]]  # as pandas does with gaps
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
def test_all_formats_give_the_same_examples(name, tmp_path):
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


def test_columns_with_names_of_fields_are_found_and_can_be_ignored(tmp_path):
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


def test_times_outside_the_range_of_python(tmp_path):
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
            "either a split column .*or shares \\(--splits\\) or years",
        ),
        ({"columns": "path=file", "splits": "train=0.8,val=0.1"}, "add up to 0.9"),
        ({"columns": "path=file", "splits": "train"}, "--splits: cannot read 'train'"),
        ({"columns": "path=file", "splits": "a=2,b=-1"}, "cannot read 'a=2'"),
        ({"columns": "path=file", "splits": "../x=1"}, "cannot read '../x=1'"),
        ({"columns": "path=file", "years": "train=12"}, "--years: cannot read 'train=12'"),
        ({"columns": "path=file", "years": "a=2012,b=2012"}, "cannot read 'b=2012'"),
        ({"columns": "path=file", "years": "a=2012"}, "--years needs times"),
        ({"columns": "path=file", "years": "a=2012", "splits": "a=1"}, "or years .*not both"),
        ({"metadata": "nowhere.csv"}, "no table at nowhere.csv"),
        ({"metadata": None}, "no table in .* with --metadata"),
    ],
)
def test_wrong_options_are_rejected(options, message, tmp_path):
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


def test_splits_by_year_are_those_of_the_times(tmp_path):
    """Of any format of time that is read; images without one, or before all, are counted."""
    times = {
        "a.png": "2012-12-31T23:59:59Z",
        "b.png": "2013-01-01 00:00",
        "c.png": "2015-12-31T23:00:00-05:00",  # 2016 in UTC
        "d.png": "2001:05:06 07:08:09",  # EXIF, before all
        "e.png": "",
        "f.png": "2030-01-01",
    }
    (tmp_path / "images").mkdir()
    for name in times:
        (tmp_path / "images" / name).touch()
    rows = [{"path": name, "timestamp": time, "split": "old"} for name, time in times.items()]
    table = write_csv(tmp_path / "t.csv", rows)
    source = Folder([tmp_path / "images"], table, years="test=2016, train=2002,val=2013")
    assert {ref.id: ref.split for ref in source.refs()} == {
        **{"a.png": "train", "b.png": "val", "c.png": "test", "f.png": "test"}
    }
    assert source.skipped == {"row of a year before all splits": 1, "row without a time": 1}
    assert source.splits_from == "by year, from train 2002, val 2013, test 2016"
    with pytest.raises(SourceError, match="none of the 6 images has a time from 2040 on"):
        Folder([tmp_path / "images"], table, years="train=2040").refs()


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
