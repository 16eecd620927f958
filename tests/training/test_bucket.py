"""A run whose workdir and data are in a bucket."""

import json
import os

import jax
import numpy as np
import pytest
from click.testing import CliRunner

from satmip_jax.checkpoints.manager import Checkpoints
from satmip_jax.cli import cli
from satmip_jax.distributed.sharding import make_mesh
from satmip_jax.runtime import stores
from satmip_jax.runtime.paths import as_path
from satmip_jax.training import loop
from satmip_jax.training.loop import Trainer, train
from satmip_jax.training.metrics_log import read_rows
from satmip_jax.training.step import build_program
from satmip_jax.training.workdir import WorkdirError
from tests.data.test_bucket import upload
from tests.fault_drill import Drill


@pytest.fixture
def shards(tiny_shards_dir, bucket, tmp_path, monkeypatch):
    monkeypatch.setenv("SATMIP_CACHE", os.fspath(tmp_path / "cache"))
    upload(tiny_shards_dir, f"{bucket}/shards")
    return f"{bucket}/shards"


def state_of(workdir):
    """The state in the newest checkpoint, on the host."""
    with Checkpoints(workdir, read_only=True) as checkpoints:
        config, schema = checkpoints.run()
        program = build_program(config, schema, schema.splits["train"], make_mesh())
        return jax.device_get(checkpoints.restore(program.abstract))


def rows_of(workdir):
    """The rows of the metrics, but for the speed."""
    rows = read_rows(as_path(workdir) / "metrics.jsonl")
    return [
        {k: v for k, v in row.items() if k not in ("images_per_second", "time")} for row in rows
    ]


def assert_same_result(workdir, other):
    jax.tree.map(np.testing.assert_array_equal, state_of(workdir), state_of(other))
    assert rows_of(workdir) == rows_of(other)


SAME = ("identical bit for bit", "with equal losses to 1e-5")


class Killed(BaseException):
    """Ends a run as a kill would: nothing is saved, logged or released."""


def train_until_killed(config, workdir, monkeypatch):
    """Train until step 3, after the checkpoint of step 2, with a row that is uploaded since."""
    end_step = Trainer._end_step

    def killed_after_3(self, done, stopped_by, monitor):
        end_step(self, done, stopped_by, monitor)
        if done == 3:
            self.checkpoints.settle()
            monitor.metrics_log.flush()
            monkeypatch.setattr(monitor.metrics_log._folder, "upload", lambda: None)
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_end_step", killed_after_3)
        with pytest.raises(Killed):
            train(config, workdir)


@pytest.mark.slow
def test_a_run_in_a_bucket_that_was_killed_ends_like_one_on_a_disk(
    tiny_run, tiny_config, shards, bucket, bucket_server, monkeypatch
):
    config = tiny_config("satmips", "--config.eval.every=4", f"--config.data.dir={shards}")
    workdir = f"{bucket}/run"
    train_until_killed(config, workdir, monkeypatch)
    assert [row["step"] for row in rows_of(workdir)] == [1, 2, 3]
    train(config, workdir)
    assert_same_result(workdir, tiny_run)
    names = set(stores.names_in(as_path(workdir)))
    files = {"config.json", "schema.json", "metrics.jsonl", "environment.jsonl"}
    assert names >= files | {"checkpoints", "tensorboard"}
    assert len(read_rows(as_path(workdir) / "environment.jsonl")) == 2
    assert not [name for name in os.listdir() if name.startswith("gs:")]


def test_a_damaged_checkpoint_is_moved_aside_in_the_bucket(bucket, tiny_run):
    config, schema = _run_of(tiny_run)
    state = {"step": np.int32(1), "params": {"kernel": jax.numpy.ones((64, 3))}}
    state = jax.device_put(state)
    with Checkpoints(bucket, keep=3) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, state, config, schema)
            checkpoints.wait()
    folder = as_path(bucket) / "checkpoints"
    (data,) = stores.names_in(folder / "3" / "state" / "d")
    stores.put(folder / "3" / "state" / "d" / data, b"torn")
    stores.remove_folder(folder / "2" / "state")  # as by a process that died while it deleted
    (folder / "2" / "commit_success.txt").unlink()
    with Checkpoints(bucket) as checkpoints:
        checkpoints.restore(jax.eval_shape(lambda: state))
        assert checkpoints.restored == 1
        assert checkpoints.latest == 1
    assert stores.names_in(folder) == ["1"]
    assert stores.names_in(as_path(bucket) / "damaged") == ["3"]


def _run_of(workdir):
    with Checkpoints(workdir, read_only=True) as checkpoints:
        return checkpoints.run()


def test_two_runs_do_not_train_in_one_workdir(tiny_config, shards, bucket, monkeypatch):
    config, workdir = tiny_config("satmips", f"--config.data.dir={shards}"), f"{bucket}/run"

    def again(*_, **__):
        with pytest.raises(WorkdirError, match=f"process {os.getpid()} on"):
            train(config, workdir)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(loop, "build_program", again)
        with pytest.raises(Killed):
            train(config, workdir)
    assert json.loads(stores.get(as_path(workdir) / "train.lock.1"))["ended"]


def test_a_workdir_in_no_bucket_is_refused_before_compiling(
    tiny_config, bucket_server, monkeypatch
):
    monkeypatch.setattr(loop, "make_mesh", None)  # not reached
    with pytest.raises(OSError, match="no bucket gs://elsewhere"):
        train(tiny_config(), "gs://elsewhere/run")


@pytest.mark.slow
def test_a_run_in_a_bucket_is_evaluated_and_reported(tiny_run, shards, bucket, tmp_path):
    workdir = as_path(bucket) / "run"
    stores.put_folder(tiny_run, workdir)
    for step in stores.names_in(workdir / "checkpoints"):
        stores.put(workdir / "checkpoints" / step / "commit_success.txt", b"")
    options = ["--features", "image", "--protocols", "knn5", "--block", "0"]
    command = ["evaluate", "--workdir", os.fspath(workdir), "--data", shards, *options]
    result = CliRunner().invoke(cli, command, catch_exceptions=False)
    assert result.exit_code == 0
    assert "knn5" in result.output
    assert json.loads(stores.get(workdir / "evaluation.json"))


@pytest.mark.slow
@pytest.mark.skipif("SATMIP_DRILL" not in os.environ, reason="minutes of retries: SATMIP_DRILL=1")
@pytest.mark.parametrize("layout", [{"processes": 1}, {"processes": 2, "elastic": True}])
def test_a_run_in_a_bucket_survives_kills_and_faults_of_the_store(layout, tmp_path, monkeypatch):
    """Kills of real processes; `python -m tests.fault_drill --workdir gs://...` does many."""
    pytest.importorskip("gcp_storage_emulator")
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)  # an emulator of its own
    drill = Drill(tmp_path, **layout, seed=2, workdir="gs://drill/run")
    drill.run(kills=3)  # the first one is of `satmip prepare`
    assert not drill.outcomes["differs"], drill.table()
    assert sum(drill.outcomes[f"runs {how}"] for how in SAME) >= 1
    assert sum(drill.injected.values()) > 0
