"""FGSC-23: numbered folders under train and test."""

import io
import pickle
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from satmip_jax.data.shard_dataset import ShardDataset
from satmip_jax.metadata.record import Problems
from satmip_jax.prepare.run import prepare
from satmip_jax.sources.base import Source, SourceError
from satmip_jax.sources.fgsc23 import CLASSES, FGSC23
from satmip_jax.sources.registry import open_source

CHIPS = ["train/0/0_1_2.jpg", "train/0/0_2_2.jpg", "train/22/22_9_1.jpg", "test/7/7_5_3.jpg"]


def chip(seed: int) -> bytes:
    file = io.BytesIO()
    # chips have many sizes, and some are grey
    mode, colour = ("L", seed) if seed % 2 else ("RGB", (seed, 60, 90))
    Image.new(mode, (40 + seed, 60 + seed), colour).save(file, "JPEG")
    return file.getvalue()


def write(root: Path, prefix: str = "FGSC-23") -> dict[str, bytes]:
    made = {name: chip(i) for i, name in enumerate(CHIPS)}
    for name, data in made.items():
        path = root / prefix / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return made


def test_numbers_name_the_classes():
    assert len(CLASSES) == 23
    # as the publisher lists them
    assert (CLASSES[0], CLASSES[7], CLASSES[22]) == (
        "non-ship",
        "Tarawa-class amphibious assault ship",
        "barge",
    )


@pytest.mark.parametrize("how", ["root", "parent", "two folders", "zip"])
def test_the_folders_decide(tmp_path, how):
    made = write(tmp_path)
    root = tmp_path / "FGSC-23"
    paths = [root]
    if how == "parent":
        paths = [tmp_path]
    elif how == "two folders":
        paths = [root / "train", root / "test"]
    elif how == "zip":
        paths = [tmp_path / "ships.zip"]
        with zipfile.ZipFile(paths[0], "w") as archive:
            for name, data in made.items():
                archive.writestr(f"FGSC-23/{name}", data)
    source = open_source("fgsc23", paths)
    assert isinstance(source, Source)
    refs = source.refs()
    assert {ref.id: ref.split for ref in refs} == {key: key.partition("/")[0] for key in made}
    assert not source.skipped
    again = pickle.loads(pickle.dumps(source))
    for ref in refs:
        example = again.read(ref, Problems())
        assert example.image == made[ref.id]
        assert example.label == CLASSES[int(ref.id.split("/")[1])]
        assert not example.metadata.values


def test_files_elsewhere_are_counted(tmp_path):
    write(tmp_path)
    for name in ("train/23/a.jpg", "train/ships/a.jpg", "val/1/a.jpg", "cover.jpg"):
        path = tmp_path / "FGSC-23" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    write(tmp_path, "copy")
    source = FGSC23([tmp_path])
    assert len(source.refs()) == 4
    assert source.skipped == {
        "chip in '23', which is not the number of a class": 1,
        "chip in 'ships', which is not the number of a class": 1,
        "chip in neither train/<number> nor test/<number>": 2,
        "the same chip again, in another place": 4,
    }
    with pytest.raises(SourceError, match=r"no chips of FGSC-23 in .*expected train/<number>"):
        FGSC23([tmp_path / "FGSC-23" / "val"]).refs()


def test_from_folders_to_shards(tmp_path):
    write(tmp_path)
    (tmp_path / "FGSC-23" / "train" / "3").mkdir()
    (tmp_path / "FGSC-23" / "train" / "3" / "3_bad.jpg").write_bytes(b"\xff\xd8\xff")
    out = tmp_path / "out"
    report = prepare(FGSC23([tmp_path]), out, image_size=32, workers=0, progress=False)
    assert report.splits == {"train": 3, "test": 1}
    assert report.bad_reasons() == {"damaged JPEG header": 1}
    data = ShardDataset(out, "test")
    assert data.schema.classes == CLASSES
    assert data[0]["label"] == 7
    assert "train and test" in data.schema.provenance["source.splits"]
