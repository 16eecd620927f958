"""The local cache of remote folders."""

import os

import pytest
from etils import epath

from satmip_jax.data import remote_cache, shard_dataset
from satmip_jax.data.shard_dataset import ShardDataset
from satmip_jax.data.shard_format import shard_file
from satmip_jax.runtime import files
from tests.data.tiny_records import records, schema


def test_remote_folders_are_copied_once(prepared, tmp_path_factory, monkeypatch, capsys):
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("SATMIP_CACHE", os.fspath(cache))
    monkeypatch.setattr(
        shard_dataset, "is_remote", lambda path: True
    )  # as gs://bucket/tiny would be
    data = ShardDataset(prepared, "train")
    assert [data[i]["id"] for i in range(7)] == [r.id for r in records(7)]
    assert "copying" in capsys.readouterr().err
    (local,) = cache.iterdir()
    names = sorted(p.name for p in local.iterdir() if not p.name.startswith("."))
    assert names == [shard_file("tiny", "train", i, 3) for i in range(3)]  # not val

    stamp = (local / names[0]).stat().st_mtime_ns
    ShardDataset(prepared, "train")
    assert (local / names[0]).stat().st_mtime_ns == stamp
    assert capsys.readouterr().err == ""

    (local / names[0]).write_bytes(b"half")  # what an unclean copy by hand would leave
    assert ShardDataset(prepared, "train")[0]["id"] == records(1)[0].id

    schema(train=7, val=2, test=0).save(prepared / "schema.json")  # prepared again
    ShardDataset(prepared, "train")
    assert len(list(cache.iterdir())) == 2


def test_an_interrupted_copy_is_not_used(tmp_path, monkeypatch):
    remote = epath.Path(tmp_path / "remote")
    remote.mkdir()
    (remote / "a").write_bytes(b"x" * 100)

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(files, "replace_durably", stop)
        with pytest.raises(KeyboardInterrupt):
            remote_cache.mirror(remote, ["a"], b"1", tmp_path / "cache")
    (folder,) = (tmp_path / "cache").iterdir()
    (folder / ".b.0.tmp").touch()  # of a copy that was killed
    local = remote_cache.mirror(remote, ["a"], b"1", tmp_path / "cache")
    assert (local / "a").read_bytes() == b"x" * 100
    left = {".lock", ".reading", ".versions"}
    assert {path.name for path in folder.iterdir()} == {"a", *left}
