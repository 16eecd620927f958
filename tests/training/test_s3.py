"""A run whose workdir is in S3, by moto's server: needs the extra `test-s3`."""

import os

import jax
import numpy as np
import pytest

from satmip_jax.checkpoints.manager import Checkpoints, SaveError
from satmip_jax.runtime import stores
from satmip_jax.runtime.paths import PathError, as_path
from satmip_jax.training.loop import train
from satmip_jax.training.workdir import training_folder
from tests.data.test_bucket import upload
from tests.training.test_bucket import (
    _run_of,
    assert_same_result,
    rows_of,
    train_until_killed,
)


@pytest.mark.slow
def test_a_run_that_was_killed_ends_like_one_on_a_disk(
    s3, tiny_run, tiny_config, tiny_shards_dir, tmp_path, monkeypatch
):
    monkeypatch.setenv("SATMIP_CACHE", os.fspath(tmp_path / "cache"))
    monkeypatch.setattr("tempfile.tempdir", os.fspath(tmp_path))
    upload(tiny_shards_dir, f"{s3}/run-shards")
    workdir = f"{s3}/run"
    config = tiny_config("satmips", "--config.eval.every=4", f"--config.data.dir={s3}/run-shards")
    train_until_killed(config, workdir, monkeypatch)
    assert [row["step"] for row in rows_of(workdir)] == [1, 2, 3]
    assert stores.names_in(as_path(workdir) / "checkpoints") == ["2"]
    train(config, workdir)
    assert_same_result(workdir, tiny_run)
    assert not [*tmp_path.glob("satmip-checkpoints-*")]


def test_checkpoints_are_kept_and_set_aside_as_on_a_disk(s3, tiny_run):
    config, schema = _run_of(tiny_run)
    workdir = as_path(s3) / "kept"
    state = jax.device_put({"step": np.int32(1), "params": {"kernel": np.ones((64, 3))}})
    with Checkpoints(workdir, keep=2) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, state, config, schema)
            checkpoints.wait()
    folder = workdir / "checkpoints"
    assert stores.names_in(folder) == ["2", "3"]
    (data,) = stores.names_in(folder / "3" / "state" / "d")
    stores.put(folder / "3" / "state" / "d" / data, b"torn")
    stores.put(folder / "4" / "state" / "left", b"by an upload that was killed")
    with Checkpoints(workdir) as checkpoints:
        checkpoints.restore(jax.eval_shape(lambda: state))
        assert (checkpoints.restored, checkpoints.latest) == (2, 2)
    assert stores.names_in(folder) == ["2"]
    assert stores.names_in(workdir / "damaged") == ["3"]


def test_a_checkpoint_that_is_not_uploaded_is_a_failed_save(s3, tiny_run, monkeypatch):
    config, schema = _run_of(tiny_run)
    workdir = as_path(s3) / "failing"
    state = jax.device_put({"step": np.int32(1)})

    def refuse(*_):
        raise OSError("the bucket is read-only")

    with Checkpoints(workdir) as checkpoints:
        for step in (1, 2, 3):
            with monkeypatch.context() as patch:
                if step == 2:
                    patch.setattr(stores, "put_file", refuse)
                checkpoints.save(step, state, config, schema)
                checkpoints.settle()
            if step == 2:
                with pytest.raises(SaveError, match="2 could not be written: the bucket is read"):
                    checkpoints.wait()
        assert checkpoints._steps() == [1, 3]
    assert stores.names_in(workdir / "checkpoints") == ["1", "3"]


def test_several_processes_are_refused(s3, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(PathError, match=r"--workdir s3://bucket/run: .* gs://"):
        training_folder(f"{s3}/run")
