"""Prepared data in S3, by moto's server: needs the extra `test-s3`."""

import os

import pytest

from satmip_jax.data.shard_dataset import ShardDataset
from satmip_jax.prepare.run import prepare
from satmip_jax.runtime import stores
from satmip_jax.runtime.paths import as_path
from satmip_jax.runtime.stores import StoreError
from satmip_jax.sources.registry import open_source


def test_shards_are_prepared_and_read(s3, tmp_path, monkeypatch):
    monkeypatch.setenv("SATMIP_CACHE", os.fspath(tmp_path / "cache"))
    source = open_source("synthetic", [tmp_path / "scenes"], train=10, val=3, size=32)
    options = {"image_size": 16, "shard_size": 4, "workers": 0, "progress": False}
    prepare(source, tmp_path / "local", **options)
    prepare(source, f"{s3}/shards", **options)
    local = ShardDataset(tmp_path / "local", "train")
    remote = ShardDataset(f"{s3}/shards", "train")
    assert [remote[i]["image"] for i in range(10)] == [local[i]["image"] for i in range(10)]
    assert prepare(source, f"{s3}/shards", **options).resumed == 13


def test_an_object_is_created_once(s3):
    path = as_path(s3) / "claims" / "a"
    assert stores.create(path, b"first")
    assert not stores.create(path, b"second")
    assert stores.get(path) == b"first"


def test_a_missing_bucket_is_two_lines(s3):
    with pytest.raises(StoreError, match="no bucket s3://elsewhere") as error:
        stores.check_access(as_path("s3://elsewhere/shards"))
    assert len(str(error.value).splitlines()) == 2
