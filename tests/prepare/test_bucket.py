"""Preparation into a bucket: the bytes of a local one, resumed, and by one process at a time."""

import os

import pytest
from click.testing import CliRunner

from satmip_jax.cli import cli
from satmip_jax.data.shard_dataset import ShardDataset
from satmip_jax.prepare.run import PrepareError, prepare
from satmip_jax.prepare.shard_job import Job
from satmip_jax.runtime import stores
from satmip_jax.runtime.paths import as_path
from satmip_jax.sources.registry import open_source

OPTIONS = {"image_size": 16, "shard_size": 4, "progress": False}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    scenes = tmp_path_factory.mktemp("scenes")
    return open_source("synthetic", [scenes / "scenes"], train=10, val=3, size=32)


@pytest.fixture(scope="module")
def local(source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("local") / "shards"
    prepare(source, folder, workers=0, **OPTIONS)
    return folder


def assert_same_files(url, local):
    """All but the report, which has the time, is the same; nothing else is in the bucket."""
    files = {file.name for file in local.iterdir() if file.is_file()}
    assert set(stores.names_in(as_path(url))) == files | {".prepare"}
    for name in files - {"prepare_report.json"}:
        assert stores.get(as_path(url) / name) == (local / name).read_bytes(), name


def test_shards_in_a_bucket_have_the_bytes_of_local_ones(
    source, local, bucket, tmp_path, monkeypatch
):
    monkeypatch.setenv("TMPDIR", os.fspath(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    prepare(source, bucket, workers=1, **OPTIONS)  # a worker process
    assert_same_files(bucket, local)
    assert not [*tmp_path.iterdir()]  # the temporary shards


def test_an_interrupted_preparation_in_a_bucket_resumes(
    source, local, bucket, bucket_server, monkeypatch
):
    run, done = Job.run, []

    def stop_after_two(self, task, tick):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(task)
        run(self, task, tick)

    with monkeypatch.context() as patch:
        patch.setattr(Job, "run", stop_after_two)
        with pytest.raises(KeyboardInterrupt):
            prepare(source, bucket, workers=0, **OPTIONS)
    with pytest.raises(Exception, match="no prepared data"):
        ShardDataset(bucket, "train")
    assert prepare(source, bucket, workers=0, **OPTIONS).resumed == 8
    assert_same_files(bucket, local)
    with pytest.raises(PrepareError, match="started with other options"):
        prepare(source, bucket, workers=0, **{**OPTIONS, "image_size": 8})


def test_a_folder_of_the_bucket_with_something_else_is_left_alone(source, bucket):
    stores.put(as_path(bucket) / "thesis.tex", b"")
    with pytest.raises(PrepareError, match="holds something else"):
        prepare(source, bucket, workers=0, **OPTIONS)


def test_a_missing_bucket_is_noticed_before_the_source_is_read(bucket_server, tmp_path):
    options = ["--out", "gs://elsewhere/x", "--source", os.fspath(tmp_path / "scenes")]
    result = CliRunner().invoke(cli, ["prepare", "synthetic", "--image-size", "16", *options])
    assert result.exit_code
    assert "no bucket gs://elsewhere" in str(result.exception)
