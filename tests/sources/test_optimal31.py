"""OPTIMAL-31: 80/20, drawn within each class."""

import io
from collections import Counter

from PIL import Image

from satmip_jax.prepare.run import prepare
from satmip_jax.sources.optimal31 import Optimal31
from satmip_jax.sources.registry import open_source
from satmip_jax.sources.resisc45 import RESISC45


def write(root):
    """Images/<class>/<class>_<number>.jpg, ten of two classes, one name with a space."""
    file = io.BytesIO()
    Image.new("RGB", (256, 256), (10, 90, 60)).save(file, "JPEG")
    for name in ("airplane", "baseball diamond"):
        (root / "Images" / name).mkdir(parents=True)
        for i in range(10):
            (root / "Images" / name / f"{name}_{i}.jpg").write_bytes(file.getvalue())


def test_classes_are_31_of_resisc45():
    assert len(Optimal31.classes) == 31
    assert set(Optimal31.classes) < set(RESISC45.classes)
    assert list(Optimal31.classes) == sorted(Optimal31.classes)


def test_from_folders_to_shards(tmp_path):
    write(tmp_path)
    source = open_source("optimal31", [tmp_path])
    assert source.splits_from == "drawn within each class with seed 0: train 80%, test 20%"
    counts = Counter((ref.split, ref.location[-1]) for ref in source.refs())
    assert counts == {
        ("train", "airplane"): 8,
        ("test", "airplane"): 2,
        ("train", "baseball_diamond"): 8,
        ("test", "baseball_diamond"): 2,
    }
    report = prepare(source, tmp_path / "out", image_size=64, workers=0, progress=False)
    assert report.splits == {"train": 16, "test": 4}


def test_own_lists_decide(tmp_path):
    write(tmp_path)
    (tmp_path / "optimal31-train.txt").write_text("airplane_1.jpg\nairplane_2.jpg\n")
    (tmp_path / "optimal31-test.txt").write_text("baseball diamond/baseball diamond_3.jpg\n")
    source = Optimal31([tmp_path])
    assert {ref.id: ref.split for ref in source.refs()} == {
        "airplane/airplane_1.jpg": "train",
        "airplane/airplane_2.jpg": "train",
        "baseball_diamond/baseball diamond_3.jpg": "test",
    }
    assert source.skipped == {"image on no list": 17}
