"""Data sets that TensorFlow Datasets prepared, read without TensorFlow."""

import io
import json
import pickle
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from satmip_jax.cli import cli
from satmip_jax.data.shard_dataset import ShardDataset
from satmip_jax.metadata.record import Problems
from satmip_jax.prepare.run import prepare
from satmip_jax.sources.base import Source, SourceError, UnreadableExample
from satmip_jax.sources.eurosat import CLASSES, EuroSAT
from satmip_jax.sources.registry import open_source
from satmip_jax.sources.resisc45 import RESISC45
from satmip_jax.sources.so2sat import CLASSES as ZONES
from satmip_jax.sources.ucmerced import UCMerced


def picture(seed: int, size: int, format: str = "JPEG") -> bytes:
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(coarse).resize((size, size)).save(file, format)
    return file.getvalue()


def write(root: Path, name: str, classes, rows: dict[str, list[dict]], config="", version="2.0.0"):
    """<root>/<name>[/<config>]/<version>/, as `tfds build --file_format=array_record` makes it."""
    import tensorflow_datasets as tfds
    from array_record.python.array_record_module import ArrayRecordWriter
    from etils import epath

    folder = root / name / config / version
    folder.mkdir(parents=True)
    first = next(iter(rows.values()))[0]
    kinds = {
        "image": tfds.features.Image(),
        "label": tfds.features.ClassLabel(names=list(classes)),
        "filename": tfds.features.Text(),
        "sample_id": tfds.features.Tensor(shape=(), dtype=np.int64),
    }
    features = tfds.features.FeaturesDict({key: kinds[key] for key in first})
    template = tfds.core.ShardedFileTemplate(
        data_dir=epath.Path(folder), dataset_name=name, filetype_suffix="array_record"
    )
    infos = []
    for split, examples in rows.items():
        path = folder / f"{name}-{split}.array_record-00000-of-00001"
        writer = ArrayRecordWriter(str(path), "group_size:1")
        for example in examples:
            encoded = {**example, "image": io.BytesIO(example["image"])}
            writer.write(features.serialize_example(encoded))
        writer.close()
        infos.append(
            tfds.core.SplitInfo(
                name=split,
                shard_lengths=[len(examples)],
                num_bytes=path.stat().st_size,
                filename_template=template.replace(split=split),
            )
        )
    tfds.folder_dataset.write_metadata(
        data_dir=folder,
        features=features,
        split_infos=infos,
        filename_template=template,
        description=name,
        version=version,
        check_data=False,
    )
    return folder


def scenes(classes, some, size, ending, format="JPEG", per_class=10, digits=""):
    return [
        {
            "image": picture(100 * c + i, size, format),
            "label": list(classes).index(name),
            "filename": f"{name}{digits}{i:02d}{ending}",
        }
        for i in reversed(range(per_class))
        for c, name in enumerate(some)
    ]


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    return tmp_path / "tfds"


@pytest.fixture
def eurosat(root):
    rows = scenes(CLASSES, ("Forest", "River"), 64, ".jpg", digits="_")
    return write(root, "eurosat", CLASSES, {"train": rows}, config="rgb"), rows


def test_eurosat_through_the_command(eurosat, tmp_path):
    _, rows = eurosat
    out = tmp_path / "out"
    words = ["prepare", "eurosat", "--source", "tfds:eurosat", "--out", str(out), "--workers", "0"]
    run = CliRunner().invoke(cli, words)
    assert run.exit_code == 0, run.output
    assert "splits: drawn within each class with seed 0" in run.output
    images = {f"{CLASSES[row['label']]}/{row['filename']}": row["image"] for row in rows}
    seen = Counter()
    for split in ("train", "val", "test"):
        data = ShardDataset(out, split)
        assert data.schema.image_size == 64
        assert data.schema.provenance["source.tfds"] == "eurosat/rgb:2.0.0"
        for i in range(len(data)):
            record = data[i]
            assert record["image"] == images.pop(record["id"])
            assert CLASSES[record["label"]] == record["id"].partition("/")[0]
            assert record["metadata"].values["gsd"] == (10.0, 10.0)
            assert "location" not in record["metadata"].values
            seen[split, record["label"]] += 1
    assert not images
    assert {split: n for (split, label), n in seen.items() if label == 1} == {
        "train": 6,
        "val": 2,
        "test": 2,
    }
    assert "tensorflow" not in sys.modules


def test_the_split_is_that_of_the_files(eurosat, tmp_path):
    _, rows = eurosat
    for row in rows:
        path = tmp_path / "EuroSAT_RGB" / CLASSES[row["label"]] / row["filename"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(row["image"])
    files = EuroSAT([tmp_path / "EuroSAT_RGB"], split_column="drawn", seed=5)
    through = open_source("eurosat", ["tfds:eurosat/rgb"], seed=5)
    assert isinstance(through, Source)
    expected = {ref.id: ref.split for ref in files.refs()}
    assert {ref.id: ref.split for ref in through.refs()} == expected
    names = sorted(row["filename"] for row in rows)
    for split, part in (("train", names[:12]), ("val", names[12:16]), ("test", names[16:])):
        (tmp_path / f"eurosat-{split}.txt").write_text("\n".join(part))
    listed = open_source("eurosat", ["tfds:eurosat:2.0.0"], splits_folder=tmp_path)
    assert [r.split for r in listed.refs()] == ["train"] * 12 + ["val"] * 4 + ["test"] * 4


def test_a_folder_and_the_newest_version(eurosat, root):
    folder, rows = eurosat
    newer = write(root, "eurosat", CLASSES, {"train": rows[:4]}, config="rgb", version="10.0.0")
    assert len(open_source("eurosat", ["tfds:eurosat"]).refs()) == 4  # 10 comes after 2
    source = open_source("eurosat", [f"tfds:{folder}"])
    refs = source.refs()
    assert len(refs) == 20
    expected = source.read(refs[3], Problems())
    assert pickle.loads(pickle.dumps(source)).read(refs[3], Problems()) == expected
    assert newer.name == "10.0.0"


def test_resisc45_and_uc_merced(root, tmp_path):
    write(
        root,
        "resisc45",
        RESISC45.classes,
        {"train": scenes(RESISC45.classes, ("lake", "ship"), 256, ".jpg", digits="_0")},
        version="3.0.0",
    )
    source = open_source("resisc45", ["tfds:resisc45"])
    assert Counter(ref.split for ref in source.refs()) == {"train": 12, "val": 4, "test": 4}
    assert not source.read(source.refs()[0], Problems()).metadata.values
    rows = scenes(UCMerced.classes, ("harbor", "river"), 256, ".tif", "PNG")  # TFDS stores PNG
    write(root, "uc_merced", UCMerced.classes, {"train": rows})
    source = open_source("ucmerced", ["tfds:uc_merced"])
    report = prepare(source, tmp_path / "out", image_size=32, workers=0, progress=False)
    assert report.splits == {"train": 12, "val": 4, "test": 4}
    record = ShardDataset(tmp_path / "out", "test")[0]
    np.testing.assert_allclose(record["metadata"].values["gsd"], (2.4, 2.4), rtol=1e-6)


def test_so2sat_keeps_its_own_splits(root):
    rows = [
        {"image": picture(i, 32, "PNG"), "label": i % 17, "sample_id": 90 - i} for i in range(20)
    ]
    write(root, "so2sat", ZONES, {"train": rows[:15], "validation": rows[15:]}, config="rgb")
    source = open_source("so2sat", ["tfds:so2sat"])
    refs = source.refs()
    assert Counter(ref.split for ref in refs) == {"train": 15, "val": 5}
    example = source.read(refs[16], Problems())
    assert (example.id, example.image, example.label) == (
        "validation/000001",
        rows[16]["image"],
        ZONES[16],
    )
    assert source.splits_from == "those of TFDS: train, validation"
    with pytest.raises(SourceError, match="remove --splits-folder"):
        open_source("so2sat", ["tfds:so2sat"], splits_folder=root)


def test_bad_records_are_counted(root):
    rows = scenes(CLASSES, ("Forest",), 64, ".jpg", digits="_")
    doubled = write(root, "eurosat", CLASSES, {"train": [*rows, rows[0]]}, config="rgb")
    source = open_source("eurosat", ["tfds:eurosat"])
    assert len(source.refs()) == 10
    assert source.skipped == {"the same image again": 1}
    refs = source.refs()
    shard = doubled / "eurosat-train.array_record-00000-of-00001"
    data = bytearray(shard.read_bytes())
    data[9000:9020] = bytes(20)  # in one of the records
    shard.write_bytes(data)
    again = open_source("eurosat", ["tfds:eurosat"])
    assert len(again.refs()) == 9
    assert sum(n for reason, n in again.skipped.items() if "damaged record" in reason) == 1
    bad = 0
    for ref in refs:  # of before the damage
        try:
            again.read(ref, Problems())
        except UnreadableExample:
            bad += 1
    assert bad == 1


def test_errors_say_what_to_do(eurosat, root, tmp_path):
    folder, _ = eurosat
    with pytest.raises(
        SourceError, match=r"no data set resisc45 in .*tfds build resisc45 --file_f"
    ):
        open_source("resisc45", ["tfds:resisc45"])
    with pytest.raises(SourceError, match=r"no data set eurosat/rgb:9\.9\.9 in "):
        open_source("eurosat", ["tfds:eurosat:9.9.9"])
    with pytest.raises(SourceError, match=r"nor the name 'eurosat/rgb'"):
        open_source("eurosat", ["tfds:mnist"])
    with pytest.raises(SourceError, match=r"its classes are AnnualCrop, .*, not those of resisc45"):
        open_source("resisc45", [f"tfds:{folder}"])
    with pytest.raises(SourceError, match="TFDS has no data set fgsc23"):
        open_source("fgsc23", ["tfds:fgsc23"])
    with pytest.raises(SourceError, match="give one data set of TFDS, not 2"):
        open_source("eurosat", ["tfds:eurosat", tmp_path])
    with pytest.raises(SourceError, match=r"--metadata \(its options: --splits-folder, --seed\)"):
        open_source("eurosat", ["tfds:eurosat"], metadata="x.csv")
    info = folder / "dataset_info.json"
    written = info.read_text()
    info.write_text(written.replace("array_record", "tfrecord"))
    with pytest.raises(SourceError, match=r"format tfrecord, which needs TensorFlow.*convert_form"):
        open_source("eurosat", ["tfds:eurosat"])
    info.write_text("{")
    with pytest.raises(SourceError, match=r"dataset_info\.json is not JSON: .*build"):
        open_source("eurosat", ["tfds:eurosat"])
    info.write_text(written)
    (folder / "eurosat-train.array_record-00000-of-00001").unlink()
    with pytest.raises(SourceError, match=r"no usable record \(20 x record: damaged record: "):
        open_source("eurosat", ["tfds:eurosat"]).refs()


@pytest.mark.parametrize("old", [False, True])
def test_nothing_is_imported_for_a_file(eurosat, tmp_path, monkeypatch, old):
    """TFDS imports the modules that `features.json` names: only its own may be named."""
    folder, _ = eurosat
    (tmp_path / "planted.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    path = folder / "features.json"
    features = json.loads(path.read_text())
    if old:
        features = {"type": "planted.Image", "content": {}}
    else:
        features["featuresDict"]["features"]["image"]["pythonClassName"] = "planted.Image"
    path.write_text(json.dumps(features))
    with pytest.raises(SourceError, match=r"names 'planted\.Image', which is no feature of TFDS"):
        open_source("eurosat", ["tfds:eurosat"])
    assert "planted" not in sys.modules
    path.write_text('{"a":' * 5000 + "1" + "}" * 5000)
    with pytest.raises(SourceError, match=r"features\.json"):
        open_source("eurosat", ["tfds:eurosat"])
