"""Files of the synthetic data set, and their reader."""

import hashlib
import json

import pytest

from satmip_jax.data import images
from satmip_jax.metadata.fields import FIELDS
from satmip_jax.metadata.record import Problems
from satmip_jax.sources.base import Source, SourceError
from satmip_jax.sources.registry import open_source
from satmip_jax.sources.synthetic.dataset import Synthetic, write_dataset
from satmip_jax.sources.synthetic.world import CLASSES


def contents(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*_rgb.*")
    }


def test_files_depend_on_the_arguments_only(tmp_path):
    write_dataset(tmp_path / "a", train=60, val=10, size=32, seed=1, progress=False)
    write_dataset(tmp_path / "b", train=60, val=10, size=32, seed=1, workers=2, progress=False)
    write_dataset(tmp_path / "c", train=30, val=10, size=32, seed=1, progress=False)
    write_dataset(tmp_path / "d", train=60, val=10, size=32, seed=2, progress=False)
    a, b, c, d = (contents(tmp_path / name) for name in "abcd")
    assert len(a) == 140
    assert a == b
    assert c.items() < a.items()
    assert not set(a.values()) & set(d.values())
    assert len(set(a.values())) == 140
    train, val = (
        {p.read_bytes() for p in (tmp_path / "a" / split).rglob("*.jpg")}
        for split in ("train", "val")
    )
    assert not train & val


def test_existing_data_is_kept_and_other_files_are_rejected(tmp_path):
    out = tmp_path / "out"
    write_dataset(out, train=4, val=2, size=32, progress=False)
    before = contents(out)
    image = next(out.rglob("*.jpg"))
    image.write_bytes(b"changed")
    write_dataset(out, train=4, val=2, size=32, progress=False)
    assert image.read_bytes() == b"changed"  # not written again
    with pytest.raises(SourceError, match="train=4, not 5"):
        write_dataset(out, train=5, val=2, size=32, progress=False)

    manifest = out / "synthetic.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "complete": False}))
    write_dataset(out, train=4, val=2, size=32, progress=False)  # as after an interruption
    assert contents(out) == before
    manifest.write_text("[")
    with pytest.raises(SourceError, match="delete"):
        write_dataset(out, train=4, val=2, size=32, progress=False)

    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    with pytest.raises(SourceError, match="new or empty"):
        write_dataset(other, train=4, val=2, progress=False)
    assert [path.name for path in other.iterdir()] == ["thesis.txt"]
    with pytest.raises(SourceError, match="is a file"):
        write_dataset(other / "thesis.txt", train=4, val=2, progress=False)
    with pytest.raises(SourceError, match="--size 4: must be from 32"):
        write_dataset(tmp_path / "tiny", train=1, val=1, size=4, progress=False)


def test_the_source_reads_what_it_wrote(tmp_path):
    folder = tmp_path / "synthetic"
    folder.mkdir()
    source = open_source("synthetic", [folder], train=150, val=50, size=48, seed=5)
    assert isinstance(source, Source)
    refs = source.refs()
    assert [sum(ref.split == split for ref in refs) for split in ("train", "val")] == [150, 50]
    assert source.classes == CLASSES
    assert not source.skipped
    problems = Problems()
    for ref in refs:
        example = source.read(ref, problems)
        assert f"/{example.label}/" in ref.id
        square = images.make_square(
            example.image, 48, box=example.box, context_ratio=source.context_ratio
        )
        assert square.pixels.shape == (48, 48, 3)
        assert 2 < square.pixels.std() < 120
    for field in FIELDS:  # each is missing sometimes, none often
        assert 0 <= problems.count(field.name) <= 20
    assert sum(problems.counts.values()) > 20
    assert source.options["seed"] == 5


def test_without_a_folder_the_cache_is_used(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert len(Synthetic([], train=3, val=1, size=32).refs()) == 4
    assert len(list(tmp_path.rglob("*_rgb.jpg"))) == 4
    with pytest.raises(SourceError, match="one folder"):
        Synthetic([tmp_path, tmp_path])
