"""The EuroSAT reader, on small generated archives and on the real ones."""

import io
import pickle
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from satmip_jax.metadata.record import Problems
from satmip_jax.sources.base import Ref, SourceError, UnreadableExample
from satmip_jax.sources.eurosat import CLASSES, MAX_CHIP_BYTES, EuroSAT
from satmip_jax.sources.registry import open_source

HEADER = "filename,label,split,longitude,latitude,country_code,split_spatial\n"
ROWS = """\
Forest/Forest_1.jpg,Forest,train,24.5,60.25,FIN,val
Forest/Forest_2.jpg,Forest,val,-8.0,40.5,PRT,train
River/River_1.jpg,River,train,,,,train
River/River_2.jpg,River,test,10.0,95.0,XYZ,train
SeaLake/SeaLake_9.jpg,SeaLake,train,3.0,43.0,FRA,train
"""
CHIPS = ["Forest/Forest_1.jpg", "Forest/Forest_2.jpg", "River/River_1.jpg", "River/River_2.jpg"]


def chip(name: str) -> bytes:
    return b"jpeg of " + name.encode()


def write_zip(path: Path, names, prefix="EuroSAT_RGB/") -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(prefix + name, chip(name))


@pytest.fixture
def folder(tmp_path):
    """Two archives, the CSV beside them; SeaLake_9 has a row and no image."""
    write_zip(tmp_path / "train.zip", CHIPS[::2])
    write_zip(tmp_path / "val.zip", CHIPS[1::2])
    (tmp_path / "meta.csv").write_text(HEADER + ROWS)
    return tmp_path


def summary(source: EuroSAT) -> dict[str, tuple[str, bytes]]:
    return {r.id: (r.split, source.read(r, Problems()).image) for r in source.refs()}


def test_reads_archives(folder):
    source = open_source("eurosat", [folder])
    refs = source.refs()
    assert [r.id for r in refs] == CHIPS
    assert [r.split for r in refs] == ["train", "val", "train", "test"]
    assert source.skipped == {"row without an image": 1}
    problems = Problems()
    examples = [source.read(r, problems) for r in refs]
    assert [e.image for e in examples] == [chip(name) for name in CHIPS]
    assert [e.label for e in examples] == ["Forest", "Forest", "River", "River"]
    assert all(e.box is None for e in examples)
    assert examples[0].metadata.values == {
        "gsd": (10.0, 10.0),
        "location": (24.5, 60.25),
        "country_code": "FIN",
        "wavelengths": (665.0, 560.0, 490.0),
        "sensor_platform": "SENTINEL2",
    }
    assert problems.count("location", "missing") == 1  # River_1 has none
    assert problems.count("location", "out of range") == 1  # River_2: latitude 95
    assert problems.count("country_code", "unknown category") == 1
    assert problems.count("timestamp", "missing") == 4
    assert source.classes == CLASSES


def test_the_column_decides_the_split_not_the_archive(folder):
    source = open_source("eurosat", [folder], split_column="split_spatial")
    assert [r.split for r in source.refs()] == ["val", "train", "train", "train"]
    assert source.options == {"split_column": "split_spatial"}


@pytest.mark.parametrize("prefix", ["", "2750/", "EuroSAT_RGB/", "a/b/c/"])
@pytest.mark.parametrize("unpacked", [False, True])
def test_leading_folders_do_not_matter(folder, tmp_path_factory, prefix, unpacked):
    expected = summary(EuroSAT([folder]))
    other = tmp_path_factory.mktemp("other")
    write_zip(other / "all.zip", CHIPS, prefix)
    if unpacked:
        with zipfile.ZipFile(other / "all.zip") as archive:
            archive.extractall(other / "images")
        (other / "all.zip").unlink()
    assert summary(EuroSAT([other, folder / "meta.csv"])) == expected


def test_files_can_be_named_one_by_one(folder):
    source = EuroSAT([folder / "train.zip"])  # finds the CSV beside it
    assert [r.id for r in source.refs()] == CHIPS[::2]
    assert source.skipped == {"row without an image": 3}
    elsewhere = EuroSAT([folder / "val.zip"], metadata=folder / "meta.csv")
    assert [r.id for r in elsewhere.refs()] == CHIPS[1::2]


def test_what_is_not_listed_is_counted(folder):
    write_zip(folder / "again.zip", ["Forest/Forest_1.jpg", "River/River_77.jpg"], "2750/")
    (folder / "meta.csv").write_text(
        HEADER
        + ROWS.replace("River,train", "Volcano,train").replace(",test,", ",../x,")
        + "Forest/Forest_1.jpg,Forest,val,0,0,,val\n"
    )
    source = EuroSAT([folder])
    assert [r.id for r in source.refs()] == CHIPS[:2]
    assert source.refs()[0].split == "train"  # the first of two rows
    assert source.skipped == {
        "the same chip again, in another archive": 1,
        "row without an image": 1,
        "the same row again": 1,
        "unknown label 'Volcano'": 1,
        "unusable split '../x'": 1,
        "image without a row": 1,
    }


def test_survives_pickling(folder):
    source = EuroSAT([folder])
    refs = source.refs()
    source.read(refs[0], Problems())  # an archive is open now
    again = pickle.loads(pickle.dumps(source))
    assert again.read(refs[3], Problems()).image == chip(CHIPS[3])


def write_lists(folder: Path, **lists) -> Path:
    for split in ("train", "val", "test"):
        names = [name.rpartition("/")[2] for name in lists.get(split, [])]
        (folder / f"eurosat-{split}.txt").write_text("\n".join(names))
    return folder


def test_lists_decide_if_given_or_without_a_csv(folder, tmp_path_factory):
    expected = {CHIPS[0]: "test", CHIPS[1]: "train", CHIPS[2]: "train", CHIPS[3]: "val"}
    given = {s: [chip for chip in CHIPS if expected[chip] == s] for s in ("train", "val", "test")}
    elsewhere = write_lists(tmp_path_factory.mktemp("lists"), **given)
    source = open_source("eurosat", [folder], splits_folder=str(elsewhere))
    refs = source.refs()
    assert {ref.id: ref.split for ref in refs} == expected
    places = [source.read(ref, Problems()).metadata.values.get("location") for ref in refs]
    assert places[:3] == [(24.5, 60.25), (-8.0, 40.5), None]  # locations still come from the CSV
    assert source.options == {"splits": source.splits_from}
    assert "eurosat-train.txt" in source.splits_from
    write_lists(folder, **given)
    beside = EuroSAT([folder])
    assert beside.splits_from == "the column 'split' of the CSV"  # which takes precedence
    assert [r.split for r in beside.refs()] == ["train", "val", "train", "test"]
    (folder / "meta.csv").unlink()
    alone = EuroSAT([folder])
    assert {ref.id: ref.split for ref in alone.refs()} == expected
    assert alone.read(alone.refs()[0], Problems()).metadata.values["gsd"] == (10.0, 10.0)


def test_a_split_can_be_drawn(folder):
    names = [f"{c}/{c}_{i}.jpg" for c in ("Forest", "River") for i in range(10)]
    write_zip(folder / "train.zip", [*names, "Volcano/Volcano_1.jpg"])
    (folder / "val.zip").unlink()
    source = open_source("eurosat", [folder], split_column="drawn", seed=4)
    refs = source.refs()
    assert [ref.id for ref in refs] == sorted(names)
    for name in ("Forest", "River"):
        splits = [ref.split for ref in refs if ref.id.startswith(name)]
        assert sorted(splits) == ["test"] * 2 + ["train"] * 6 + ["val"] * 2
    assert source.skipped == {"image in 'Volcano', which is no class": 1}
    assert "seed 4" in source.splits_from
    by_id = {ref.id: ref for ref in refs}
    with_place = source.read(by_id["Forest/Forest_1.jpg"], Problems()).metadata.values
    assert with_place["location"] == (24.5, 60.25)
    (folder / "meta.csv").unlink()
    assert [r.split for r in EuroSAT([folder], split_column="drawn", seed=4).refs()] == [
        ref.split for ref in refs
    ]
    with pytest.raises(SourceError, match=r"no EuroSAT metadata CSV .*--split-column drawn"):
        EuroSAT([folder])


# --- hostile and damaged files --------------------------------------------------------------------


def test_a_name_never_becomes_a_path(folder, tmp_path):
    write_zip(folder / "evil.zip", ["Forest/Forest_5.jpg"], "../../../../outside/")
    (folder / "meta.csv").write_text(
        HEADER + ROWS + "Forest/Forest_5.jpg,Forest,train,1,1,FRA,train\n"
    )
    before = sorted(tmp_path.rglob("*"))
    assert summary(EuroSAT([folder]))["Forest/Forest_5.jpg"][1] == chip("Forest/Forest_5.jpg")
    assert sorted(tmp_path.rglob("*")) == before


def test_sizes_are_bounded(folder):
    with zipfile.ZipFile(folder / "train.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(CHIPS[0], bytes(50 << 20))  # 50 KB in the archive
    with zipfile.ZipFile(folder / "val.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(CHIPS[1], bytes(MAX_CHIP_BYTES))
    source = EuroSAT([folder])
    big, small = source.refs()
    with pytest.raises(UnreadableExample, match="more than 4,194,304 bytes"):
        source.read(big, Problems())
    assert len(source.read(small, Problems()).image) == MAX_CHIP_BYTES


def test_damaged_members_are_named(folder):
    path = folder / "train.zip"
    data = bytearray(path.read_bytes())
    at = data.find(b"Forest_1.jpg") + len(b"Forest_1.jpg")
    data[at + 3] ^= 255  # in its compressed bytes
    path.write_bytes(data)
    source = EuroSAT([folder])
    with pytest.raises(UnreadableExample, match="damaged zip member"):
        source.read(source.refs()[0], Problems())


def test_files_that_vanish_are_named(folder):
    source = EuroSAT([folder])
    refs = source.refs()
    (folder / "train.zip").unlink()
    with pytest.raises(UnreadableExample, match="cannot be read: FileNotFoundError"):
        source.read(refs[0], Problems())
    gone = Ref(
        "Forest/x.jpg", "train", (str(folder), "Forest/x.jpg", "Forest", "", "", "", None, None)
    )
    with pytest.raises(UnreadableExample, match="No such file"):
        source.read(gone, Problems())


def test_a_truncated_archive_is_counted_and_an_error_alone(folder):
    expected = [ref for ref in EuroSAT([folder]).refs() if "val.zip" not in str(ref.location[0])]
    path = folder / "val.zip"
    path.write_bytes(path.read_bytes()[:-30])
    source = EuroSAT([folder])
    assert source.refs() == expected
    assert source.skipped["val.zip: cannot be read as a zip (File is not a zip file)"] == 1
    message = r"val\.zip: cannot be read as a zip .*download it again"
    with pytest.raises(SourceError, match=message):
        EuroSAT([path], metadata=folder / "meta.csv").refs()


def test_errors_say_what_to_do(folder, tmp_path_factory):
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(SourceError, match="no CSV among the paths or beside them"):
        EuroSAT([empty])
    with pytest.raises(SourceError, match=r"no EuroSAT chips in .*expected <class>/\*\.jpg"):
        EuroSAT([empty, folder / "meta.csv"]).refs()
    with pytest.raises(SourceError, match=r"columns filename, fold, label .*split_spatial columns"):
        EuroSAT([folder], split_column="fold")
    (folder / "copy.csv").write_text(HEADER)
    with pytest.raises(
        SourceError, match=r"several files .*copy\.csv, .*meta\.csv: choose one with --metadata"
    ):
        EuroSAT([folder])
    with pytest.raises(SourceError, match="none of its 0 rows names one of the 4 chips"):
        EuroSAT([folder], metadata=folder / "copy.csv").refs()
    with pytest.raises(SourceError, match=r"no option --variant .*--metadata, --split-column, "):
        open_source("eurosat", [folder], variant="rgb")
    with pytest.raises(SourceError, match=r"no file or folder at .*nowhere"):
        open_source("eurosat", [folder / "nowhere"])
    with pytest.raises(SourceError, match="unknown source 'euro': choose one of fmow, eurosat"):
        open_source("euro", [folder])


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.text(max_size=300) | st.text(st.sampled_from('Forest/_12.jpg,"\n\r\0trainval;'), max_size=80)
)
def test_any_csv_lists_or_says_why(folder, text):
    (folder / "meta.csv").write_text(HEADER + ROWS + text, newline="")
    try:
        source = EuroSAT([folder])
        refs = source.refs()
    except SourceError as error:
        refs, message = [], str(error)
    assert refs or "meta.csv" in message
    for ref in refs:
        source.read(ref, Problems())


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_as_csv_or_zip(folder, data, as_zip):
    (folder / ("train.zip" if as_zip else "meta.csv")).write_bytes(data)
    with pytest.raises(SourceError):
        EuroSAT([folder], metadata=folder / "meta.csv").refs()


# --- the real thing -------------------------------------------------------------------------------


def test_real_archives(real_data):
    source = EuroSAT([real_data / "eurosat"])
    refs = source.refs()
    assert len(refs) == 22_950
    assert sum(r.split == "train" for r in refs) == 18_900
    assert sum(r.split == "val" for r in refs) == 4_050
    assert source.skipped == {}
    example = source.read(refs[0], Problems())
    assert example.id == "AnnualCrop/AnnualCrop_1.jpg"
    assert example.label == "AnnualCrop"
    assert example.metadata.values["location"] == (28.559055, 44.03522)
    assert example.metadata.values["country_code"] == "ROU"
    with zipfile.ZipFile(real_data / "eurosat" / "eurosat_train_0.zip") as archive:
        assert example.image == archive.read("EuroSAT_RGB/AnnualCrop/AnnualCrop_1.jpg")
    assert io.BytesIO(example.image).read(2) == b"\xff\xd8"


def test_real_spatial_split(real_data):
    source = EuroSAT([real_data / "eurosat"], split_column="split_spatial")
    refs = source.refs()
    assert sum(r.split == "train" for r in refs) == 15_528 + 3_380
    assert sum(r.split == "val" for r in refs) == 3_372 + 670
    assert refs[0].split == "val"  # AnnualCrop_1 is "train" in the random split
    # each 1-degree cell is in one split
    cells: dict[str, set[tuple[int, int]]] = {"train": set(), "val": set()}
    for ref in refs:
        longitude, latitude = ref.location[3:5]
        if longitude:
            cells[ref.split].add((int(float(longitude) // 1), int(float(latitude) // 1)))
    assert not cells["train"] & cells["val"]
