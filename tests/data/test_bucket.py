"""Prepared data in a bucket: copied to the cache, checked, shared and bounded."""

import multiprocessing
import os
from pathlib import Path

import pytest

from satmip_jax.data import remote_cache
from satmip_jax.data.remote_cache import CacheError, mirror
from satmip_jax.data.shard_dataset import ShardDataset
from satmip_jax.runtime import stores
from satmip_jax.runtime.paths import as_path
from satmip_jax.runtime.stores import StoreError


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SATMIP_CACHE", os.fspath(tmp_path / "cache"))
    return tmp_path / "cache"


def upload(folder: Path, url: str) -> None:
    for file in folder.iterdir():
        if file.is_file():
            stores.put_file(file, as_path(url) / file.name)


def test_shards_in_a_bucket_are_those_of_the_disk(tiny_shards_dir, bucket, bucket_server, cache):
    upload(tiny_shards_dir, bucket)
    for split in ("train", "val"):
        local, remote = ShardDataset(tiny_shards_dir, split), ShardDataset(bucket, split)
        assert [local[i]["image"] for i in range(len(local))] == [
            remote[i]["image"] for i in range(len(remote))
        ]
    before = len(bucket_server.requests)
    ShardDataset(bucket, "train")
    assert not [r for r in bucket_server.requests[before:] if "array_record" in r]  # copied once


def test_an_object_that_was_replaced_is_copied_again(bucket, cache):
    folder = as_path(bucket)
    stores.put(folder / "a", b"old!")
    assert (mirror(folder, ["a"], b"1") / "a").read_bytes() == b"old!"
    stores.put(folder / "a", b"new!")  # of the same size
    assert (mirror(folder, ["a"], b"1") / "a").read_bytes() == b"new!"


def test_a_copy_that_differs_from_the_checksum_is_refused(bucket, bucket_server, cache):
    folder = as_path(bucket)
    stores.put(folder / "a", b"content")
    entry = bucket_server.storage.objects["bucket"][f"{folder.name}/a"]
    entry["md5Hash"] = "1B2M2Y8AsgTpgAmY7PhCfg=="  # of other bytes
    with pytest.raises(CacheError, match="did not arrive intact"):
        mirror(folder, ["a"], b"1")
    assert not [*cache.glob("*/a")]


def test_files_that_another_process_deletes_do_not_stop_a_copy(bucket, cache, monkeypatch):
    monkeypatch.setenv("SATMIP_CACHE_GIB", "1")
    (cache / "other").mkdir(parents=True)
    (cache / "other" / ".a.tmp").symlink_to("gone")  # listed, and gone when its size is asked for
    folder = as_path(bucket)
    stores.put(folder / "a", b"content")
    assert (mirror(folder, ["a"], b"1") / "a").read_bytes() == b"content"


def read(url: str, names: list[str], cache: str, ready, done) -> None:
    mirror(as_path(url), names, b"1", Path(cache))
    ready.set()
    done.wait()


def test_what_no_process_reads_makes_room(bucket, cache, monkeypatch):
    folder = as_path(bucket)
    for name in "abc":
        stores.put(folder / name, name.encode() * 4000)
    monkeypatch.setenv("SATMIP_CACHE_GIB", str(9000 / 2**30))
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    reader = context.Process(target=read, args=(bucket, ["a"], os.fspath(cache), ready, done))
    reader.start()
    try:
        assert ready.wait(300)
        unused = mirror(folder, ["b"], b"2")
        os.close(remote_cache._reading.pop(unused))  # as if that process had ended
        mirror(folder, ["c"], b"3")
        assert sorted(p.name for p in cache.glob("*/[abc]")) == ["a", "c"]
        with pytest.raises(CacheError, match="SATMIP_CACHE_GIB"):
            mirror(folder, ["a", "b"], b"4")
    finally:
        done.set()
        reader.join()
    assert reader.exitcode == 0


def test_a_missing_bucket_is_two_lines(bucket_server):
    with pytest.raises(StoreError) as error:
        ShardDataset("gs://elsewhere/shards", "train")
    first, second = str(error.value).splitlines()
    assert "no bucket gs://elsewhere" in first
    assert "gs://elsewhere/shards" in second
