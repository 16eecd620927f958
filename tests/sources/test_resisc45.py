"""RESISC-45, and the common behaviour of data sets in class folders."""

import io
import json
import pickle
import shutil
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from satmip_jax.cli import cli
from satmip_jax.data.shard_dataset import ShardDataset
from satmip_jax.metadata.record import Problems
from satmip_jax.prepare.run import prepare
from satmip_jax.sources.base import Source, SourceError, UnreadableExample
from satmip_jax.sources.registry import open_source
from satmip_jax.sources.resisc45 import RESISC45

SOME = ("airplane", "ground_track_field", "wetland")


def jpeg(seed: int, size: int = 256) -> bytes:
    """Smooth noise, which JPEG keeps."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(coarse).resize((size, size)).save(file, "JPEG")
    return file.getvalue()


def write(root: Path, per_class: int = 10, classes=SOME) -> dict[str, bytes]:
    """NWPU-RESISC45/<class>/<class>_<number>.jpg below `root`; returns the images by id."""
    made = {}
    for c, name in enumerate(classes):
        for i in range(1, per_class + 1):
            key = f"{name}/{name}_{i:03d}.jpg"
            path = root / "NWPU-RESISC45" / key
            path.parent.mkdir(parents=True, exist_ok=True)
            made[key] = jpeg(100 * c + i)
            path.write_bytes(made[key])
    return made


def write_lists(folder: Path) -> dict[str, str]:
    """TorchGeo's three files, for what `write` wrote; returns id -> split."""
    expected = {}
    for split, numbers in {"train": range(1, 7), "val": (7, 8), "test": (9, 10)}.items():
        names = [f"{name}_{i:03d}.jpg" for name in SOME for i in numbers]
        (folder / f"resisc45-{split}.txt").write_text("\n".join(names))
        expected |= {f"{name.rpartition('_')[0]}/{name}": split for name in names}
    return expected


def to_zip(folder: Path, path: Path, prefix: str = "") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*.jpg")):
            archive.write(file, prefix + str(file.relative_to(folder)))
    return path


def read_all(source) -> dict[str, tuple[str, bytes, str]]:
    problems = Problems()
    examples = {ref.id: (ref.split, source.read(ref, problems)) for ref in source.refs()}
    return {key: (split, e.image, e.label) for key, (split, e) in examples.items()}


def test_classes_are_those_of_tfds():
    from tensorflow_datasets.datasets.resisc45.resisc45_dataset_builder import _LABELS

    assert RESISC45.classes == tuple(_LABELS)
    assert len(RESISC45.classes) == 45


@pytest.mark.parametrize("how", ["folder", "parent", "zip", "zip in a folder", "bare zip"])
def test_reads_every_layout(tmp_path, how):
    made = write(tmp_path)
    root = tmp_path / "NWPU-RESISC45"
    if "zip" in how:
        (tmp_path / "packed").mkdir()
        packed = to_zip(tmp_path if how != "bare zip" else root, tmp_path / "packed" / "a.zip")
        root = packed.parent if how == "zip in a folder" else packed
    elif how == "parent":
        root = tmp_path
    source = open_source("resisc45", [root])
    assert isinstance(source, Source)
    found = read_all(source)
    assert {key: image for key, (_, image, _) in found.items()} == made
    assert {label for _, _, label in found.values()} == set(SOME)
    for name in SOME:
        counts = Counter(split for split, _, label in found.values() if label == name)
        assert counts == {"train": 6, "val": 2, "test": 2}
    assert not source.skipped
    assert "drawn within each class with seed 0" in source.splits_from
    assert source.options == {"splits": source.splits_from}
    # the draw does not depend on the location of the images
    assert {k: v[0] for k, v in read_all(RESISC45([tmp_path / "NWPU-RESISC45"])).items()} == {
        k: v[0] for k, v in found.items()
    }


def test_lists_beside_the_data_decide(tmp_path):
    write(tmp_path)
    drawn = {ref.id: ref.split for ref in RESISC45([tmp_path]).refs()}
    elsewhere = tmp_path.parent / f"{tmp_path.name}-lists"
    elsewhere.mkdir()
    expected = write_lists(elsewhere)
    assert expected != drawn
    source = open_source("resisc45", [tmp_path], splits_folder=str(elsewhere))
    assert {ref.id: ref.split for ref in source.refs()} == expected
    packed = to_zip(tmp_path, elsewhere / "NWPU-RESISC45.zip")  # the lists lie beside the zip
    assert {ref.id: ref.split for ref in RESISC45([packed]).refs()} == expected
    for split in ("train", "val", "test"):
        (elsewhere / f"resisc45-{split}.txt").rename(tmp_path / f"resisc45-{split}.txt")
    for path in (tmp_path, tmp_path / "NWPU-RESISC45"):  # TorchGeo has them beside this folder
        assert {ref.id: ref.split for ref in RESISC45([path]).refs()} == expected
    assert "resisc45-train.txt" in source.splits_from
    assert "not the published ones" in source.splits_from


def test_mirrors_write_the_classes_differently(tmp_path):
    write(tmp_path)
    ids = [ref.id for ref in RESISC45([tmp_path]).refs()]
    folder = tmp_path / "NWPU-RESISC45"
    (folder / "ground_track_field").rename(folder / "Ground Track-Field")
    assert [ref.id for ref in RESISC45([tmp_path]).refs()] == ids


def test_other_files_are_counted(tmp_path):
    write(tmp_path, per_class=2)
    folder = tmp_path / "NWPU-RESISC45"
    shutil.copytree(folder / "airplane", folder / "volcano")
    to_zip(folder, tmp_path / "again.zip")
    (folder / "airplane" / "Thumbs.db").write_bytes(b"x")
    source = RESISC45([tmp_path])
    assert len(source.refs()) == 6
    assert source.skipped == {
        "image in 'volcano', which is no class": 4,  # the zip has them too
        "the same image again, in another place": 6,
    }


def test_rar_says_what_to_do(tmp_path):
    rar = tmp_path / "NWPU-RESISC45.rar"
    rar.write_bytes(b"Rar!\x1a\x07\x00")
    advice = "RAR archives need other software: unpack it, with `unar NWPU-RESISC45.rar`"
    with pytest.raises(SourceError, match=advice):
        RESISC45([rar]).refs()
    with pytest.raises(SourceError, match=f"no images of NWPU-RESISC45 in .*{advice}"):
        RESISC45([tmp_path]).refs()
    write(tmp_path, per_class=1)
    assert len(RESISC45([tmp_path]).refs()) == 3  # unpacked beside it


def test_errors_say_what_was_expected(tmp_path):
    (tmp_path / "volcano").mkdir()
    (tmp_path / "volcano" / "v.jpg").write_bytes(jpeg(0))
    with pytest.raises(SourceError, match=r"expected <class>/\*\.jpg .* \(1 x image in 'volcano'"):
        RESISC45([tmp_path]).refs()
    with pytest.raises(SourceError, match=r"no resisc45-train\.txt, .*: provide all of"):
        RESISC45([tmp_path], splits_folder=tmp_path)
    (tmp_path / "x.zip").write_bytes(b"PK\3\4 not really")
    with pytest.raises(SourceError, match=r"x\.zip: cannot be read as a zip .*download it again"):
        RESISC45([tmp_path / "x.zip"]).refs()


def test_bad_images_do_not_stop_the_others(tmp_path):
    write(tmp_path)
    folder = tmp_path / "NWPU-RESISC45"
    (folder / "airplane" / "airplane_001.jpg").write_bytes(b"")
    (folder / "airplane" / "airplane_002.jpg").write_bytes(jpeg(1)[:200])
    (folder / "airplane" / "airplane_003.jpg").write_bytes(bytes(17 << 20))
    packed = tmp_path / "bomb.zip"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../../wetland/wetland_099.jpg", bytes(50 << 20))
    source = RESISC45([tmp_path])
    report = prepare(source, tmp_path / "out", image_size=16, workers=0, progress=False)
    assert report.bad_reasons() == {
        "empty file": 1,
        "truncated JPEG": 1,
        "more than 16,777,216 bytes": 2,
    }
    assert sum(report.splits.values()) == 31 - 4


def test_survives_pickling(tmp_path):
    write(tmp_path, per_class=2)
    source = RESISC45([to_zip(tmp_path, tmp_path / "a.zip")])
    refs = source.refs()
    expected = source.read(refs[0], Problems())  # the archive is open now
    again = pickle.loads(pickle.dumps(source))
    assert again.read(refs[0], Problems()) == expected
    (tmp_path / "a.zip").unlink()
    with pytest.raises(UnreadableExample, match="cannot be read: FileNotFoundError"):
        pickle.loads(pickle.dumps(source)).read(refs[0], Problems())


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.text(st.sampled_from("airplane/\\._1 jpgé"), min_size=1, max_size=40)))
def test_any_names_in_a_zip(tmp_path, names):
    with zipfile.ZipFile(tmp_path / "any.zip", "w") as archive:
        for name in {*names, "airplane/airplane_1.jpg"}:
            archive.writestr(name, b"x")
    source = RESISC45([tmp_path / "any.zip"])
    refs = source.refs()
    assert refs
    for ref in refs:
        assert source.read(ref, Problems()).label == "airplane"


def test_from_archive_to_shards(tmp_path):
    """The command of the README: what is stored, and the split recorded with the prepared data."""
    made = write(tmp_path / "raw")
    expected = write_lists(tmp_path / "raw")
    words = ["--source", str(tmp_path / "raw"), "--out", str(tmp_path / "out"), "--workers", "0"]
    run = CliRunner().invoke(cli, ["prepare", "resisc45", *words])
    assert run.exit_code == 0, run.output
    assert "splits: the lists resisc45-train.txt" in run.output
    schema = json.loads((tmp_path / "out" / "schema.json").read_text())
    assert schema["provenance"]["source.splits"].startswith("the lists resisc45-train.txt")
    assert schema["image_size"] == 256
    seen = {}
    for split in ("train", "val", "test"):
        data = ShardDataset(tmp_path / "out", split)
        for i in range(len(data)):
            record = data[i]
            seen[record["id"]] = split
            assert record["image"] == made[record["id"]]  # 256 pixels already: bytes unchanged
            assert data.schema.classes[record["label"]] == record["id"].partition("/")[0]
            assert not record["metadata"].values
    assert seen == expected
