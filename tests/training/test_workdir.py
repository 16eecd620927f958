"""A workdir belongs to one process at a time, and to one config and its data."""

import fcntl
import json
import logging
import shutil
import subprocess
import sys
import threading

import jax.numpy as jnp
import pytest

from satmip_jax.checkpoints.manager import Checkpoints
from satmip_jax.config.conversion import from_json
from satmip_jax.data.shard_dataset import ShardDataset
from satmip_jax.errors import ConfigError
from satmip_jax.training.loop import train
from satmip_jax.training.workdir import WorkdirError, claim_workdir, lock_workdir


@pytest.fixture
def config(tiny_config):
    """Make the config of `run`, with changes."""
    return lambda *overrides: tiny_config("satmips", "--config.eval.every=4", *overrides)


@pytest.fixture
def run(config, tiny_shards, tmp_path):
    """The workdir of a run with checkpoints 2 and 4, of a state that is of no matter here."""
    workdir = tmp_path / "run"
    claim_workdir(workdir, config(), tiny_shards)
    tiny_shards.schema.save(workdir / "schema.json")
    with Checkpoints(workdir) as checkpoints:
        for step in (2, 4):
            checkpoints.save(step, {"step": jnp.int32(step)}, config(), tiny_shards.schema)
            checkpoints.wait()
    return workdir


def stored(workdir):
    return from_json((workdir / "config.json").read_text())


def test_a_training_that_could_not_begin_leaves_the_workdir_free(config, tiny_shards, tmp_path):
    missing = config(f"--config.data.dir={tmp_path / 'nowhere'}")
    with pytest.raises(ValueError, match="no prepared data"):
        train(missing, tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()
    claim_workdir(tmp_path / "run", config("--config.seed=1"), tiny_shards)
    (tmp_path / "run" / "bad_records.json").write_text("{}")
    claim_workdir(tmp_path / "run", config("--config.seed=2"), tiny_shards)  # nothing was saved
    assert stored(tmp_path / "run").seed == 2
    assert [path.name for path in (tmp_path / "run").iterdir() if path.suffix == ".json"] == [
        "config.json"
    ]


@pytest.mark.parametrize(
    "key",
    [
        "log_every=7",
        "checkpoint.keep=5",
        "checkpoint.every=3",
        "eval.every=2",
        "eval.batch_size=8",
        "data.workers=0",
        "data.bad_records=50",
        "data.in_memory=False",
        "optimizer.epochs=3.0",  # ignored beside optimizer.images
    ],
)
def test_options_that_do_not_change_the_result_may_change(run, config, tiny_shards, key, caplog):
    caplog.set_level(logging.INFO, "satmip_jax")
    changed = config(f"--config.{key}")
    claim_workdir(run, changed, tiny_shards)
    assert stored(run) == changed
    assert f"\n  {key.split('=')[0]}: " in caplog.text


@pytest.mark.parametrize("key", ["seed=1", "optimizer.images=128", "augment.rot90=False"])
def test_options_that_change_the_result_may_not(run, config, tiny_shards, key):
    with pytest.raises(ConfigError, match=rf"another config:\n  {key.split('=')[0]}: "):
        claim_workdir(run, config(f"--config.{key}"), tiny_shards)
    assert stored(run) == config()


def test_the_data_may_move_but_not_change(run, config, tiny_shards, tiny_shards_dir, tmp_path):
    moved = shutil.copytree(tiny_shards_dir, tmp_path / "moved")
    claim_workdir(run, config(f"--config.data.dir={moved}"), ShardDataset(moved, "train"))
    assert stored(run).data.dir == str(moved)
    schema = json.loads((moved / "schema.json").read_text())
    schema["fields"]["location"]["count"] -= 1
    (moved / "schema.json").write_text(json.dumps(schema))
    other = ShardDataset(moved, "train")
    for lost in ("nothing", "schema.json"):  # then the checkpoint tells
        (run / lost).unlink(missing_ok=True)
        with pytest.raises(ConfigError, match=r"other data than .*moved holds now"):
            claim_workdir(run, config(f"--config.data.dir={moved}"), other)
    claim_workdir(run, config(), tiny_shards)


def test_a_lost_config_comes_from_the_checkpoint(run, config, tiny_shards, caplog):
    for content in (None, "{", '{"metadata": {"heads": 0.5}}'):
        path = run / "config.json"
        path.unlink()
        if content is not None:
            path.write_text(content)
        with pytest.raises(ConfigError, match=r"learning_rate: 0\.001 -> 0\.5"):
            claim_workdir(run, config("--config.optimizer.learning_rate=0.5"), tiny_shards)
        assert stored(run) == config()
        assert "restored from a checkpoint" in caplog.text
        caplog.clear()
    claim_workdir(run, config(), tiny_shards)


def test_a_false_config_is_corrected_by_the_checkpoint(run, config, tiny_shards):
    text = (run / "config.json").read_text().replace('"seed": 0', '"seed": 5')
    (run / "config.json").write_text(text)
    claim_workdir(run, config(), tiny_shards)
    assert stored(run) == config()


def test_checkpoints_that_tell_no_config_are_not_taken(run, config, tiny_shards):
    (run / "config.json").unlink()
    for path in run.glob("checkpoints/*/run/metadata"):
        path.write_text("{")
    with pytest.raises(ConfigError, match="no checkpoint tells the config"):
        claim_workdir(run, config(), tiny_shards)


HOLD = """
import fcntl, sys, time
file = open(sys.argv[1], "a")
fcntl.flock(file, fcntl.LOCK_EX)
print("process 7 on node 3", file=file, flush=True)
print("held", flush=True)
time.sleep(600)
"""


def test_another_process_trains_there(config, tmp_path):
    with lock_workdir(tmp_path):
        pass
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path / "train.lock"], stdout=subprocess.PIPE
    )
    with other:
        try:
            assert other.stdout.readline() == b"held\n"
            with pytest.raises(WorkdirError, match=r"process is training .*7 on node 3"):
                train(config(), tmp_path)
        finally:
            other.kill()  # its lock vanishes with it
    with lock_workdir(tmp_path), pytest.raises(WorkdirError), lock_workdir(tmp_path):
        pass
    (tmp_path / "file").touch()
    with pytest.raises(WorkdirError, match=r"file/x/train.lock cannot be written"):
        train(config(), tmp_path / "file" / "x")


def test_a_look_at_the_lock_stops_no_training(tmp_path):
    """`satmip status` of a run that was killed holds its lock for an instant."""
    with (tmp_path / "train.lock").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        release = threading.Timer(0.05, fcntl.flock, (file, fcntl.LOCK_UN))
        release.start()
        with lock_workdir(tmp_path):
            assert release.finished.is_set()
        release.join()
