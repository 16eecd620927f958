"""Training: same result on any number of devices, after any interruption; clear refusals."""

import json
import os
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

from satmip_jax.checkpoints.manager import CheckpointError, Checkpoints
from satmip_jax.data.loaders import InMemoryBatches
from satmip_jax.distributed.sharding import RULES, leaf_name, make_mesh, state_sharding
from satmip_jax.errors import ConfigError
from satmip_jax.training.loop import train
from satmip_jax.training.metrics_log import read_rows
from satmip_jax.training.monitor import NotFiniteError
from satmip_jax.training.step import build_program, make_loss
from tests.conftest import REPOSITORY, TINY, load_state
from tests.fault_drill import Drill

# number of devices, and options of `config.parallel`
LAYOUTS = {
    "one device": (1, {}),
    "eight devices": (8, {}),
    "micro-batches": (1, {"micro_batch": 4}),
    "all at once": (4, {"fsdp": 2, "exchange": "ring", "micro_batch": 2}),
}


def test_loss_and_gradients_do_not_depend_on_the_layout(tiny_config, tiny_shards):
    """Views, dropout, losses over the global batch, batch norm: all of a step but the update."""
    results = {}
    for name, (devices, options) in LAYOUTS.items():
        config = tiny_config(
            "satmips", *(f"--config.parallel.{key}={value}" for key, value in options.items())
        )
        mesh = make_mesh(jax.devices()[:devices], fsdp=config.parallel.fsdp)
        program = build_program(config, tiny_shards.schema, len(tiny_shards), mesh)
        loss = jax.jit(
            jax.value_and_grad(
                make_loss(config, program.towers, program.method, program.schema, mesh),
                has_aux=True,
            )
        )
        with InMemoryBatches(tiny_shards, mesh, batch_size=16, seed=0) as batches:
            params = program.init().params
            results[name] = jax.device_get(loss(params, next(batches), jax.random.key(7)))
    (want, want_metrics), want_gradients = results.pop("one device")
    largest = max(float(np.abs(g).max()) for g in jax.tree.leaves(want_gradients))
    for name, ((got, metrics), gradients) in results.items():
        np.testing.assert_allclose(got, want, rtol=1e-5, err_msg=name)
        jax.tree.map(
            lambda a, b, name=name: np.testing.assert_allclose(a, b, rtol=1e-5, err_msg=name),
            metrics,
            want_metrics,
        )
        jax.tree.map(
            lambda a, b, name=name: np.testing.assert_allclose(
                a, b, rtol=1e-5, atol=1e-5 * largest, err_msg=name
            ),
            gradients,
            want_gradients,
        )


def test_fsdp_shards_the_state_among_the_devices(tiny_config, tiny_shards):
    """With fsdp of 4 each device holds a quarter of every matrix and of its moments."""
    config = tiny_config("satmips", "--config.parallel.fsdp=4")
    mesh = make_mesh(fsdp=4)
    program = build_program(config, tiny_shards.schema, len(tiny_shards), mesh)
    with InMemoryBatches(tiny_shards, mesh, batch_size=16, seed=0) as batches:
        state, metrics = program.step(program.init(), next(batches))
    assert np.isfinite(float(metrics["loss"]))
    sharded = 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        name = leaf_name(path)
        local = leaf.addressable_shards[0].data.size
        if name.endswith("kernel") and "metadata_encoder" not in name:
            assert local * 4 == leaf.size, name
            sharded += 1
        else:
            assert local == leaf.size, name
    assert sharded >= 3 * 9  # parameters and both moments
    assert state_sharding(program.abstract, mesh)[1] == []
    _, notes = state_sharding(program.abstract, mesh, RULES[:1])
    assert any("no sharding rule matches params.image_encoder.norm.scale" in note for note in notes)


@pytest.mark.slow
def test_a_killed_and_resumed_run_ends_bit_for_bit_like_an_undisturbed_one(tmp_path):
    """A few kills of real processes in random phases; `python -m tests.fault_drill` does many."""
    drill = Drill(tmp_path, processes=1, seed=1)
    drill.run(kills=2)
    assert not drill.outcomes["differs"], drill.table()
    assert drill.outcomes["runs identical bit for bit"] >= 1


@pytest.mark.slow
def test_a_run_resumes_on_another_number_of_devices(tiny_run, tiny_shards_dir, tmp_path):
    """Started on 8 devices, resumed on 2: the same samples in the same order, the same losses."""
    workdir = tmp_path / "run"
    shutil.copytree(tiny_run, workdir)
    shutil.rmtree(workdir / "checkpoints" / "4")
    command = [sys.executable, "-m", "satmip_jax.cli", "train", "--workdir", str(workdir)]
    command += ["--config", str(REPOSITORY / "configs/eurosat.py:satmips,cpu"), *TINY]
    command += ["--config.eval.every=4", f"--config.data.dir={tiny_shards_dir}"]
    resumed = subprocess.run(
        command,
        env=os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"},
        capture_output=True,
        text=True,
        timeout=900,
        cwd=REPOSITORY,
    )
    assert resumed.returncode == 0, resumed.stderr
    assert "on 2 cpu device(s)" in resumed.stderr
    assert "resumed at step 2" in resumed.stderr
    ours, theirs = (read_rows(folder / "metrics.jsonl") for folder in (workdir, tiny_run))
    assert [row["step"] for row in ours] == [row["step"] for row in theirs]
    for row, other in zip(ours, theirs, strict=True):
        if "loss" in row:
            assert row["loss"] == pytest.approx(other["loss"], rel=1e-5)
            assert row["simclr_loss"] == pytest.approx(other["simclr_loss"], rel=1e-5)


def tear_checkpoints(workdir):
    for file in workdir.glob("checkpoints/*/state/d/*"):
        file.write_bytes(file.read_bytes()[:100])


@pytest.mark.slow
def test_a_run_that_was_killed_in_its_first_save_starts_again(
    tiny_run, tiny_config, tmp_path, caplog
):
    workdir = tmp_path / "run"
    shutil.copytree(tiny_run, workdir)
    shutil.rmtree(workdir / "checkpoints" / "4")
    tear_checkpoints(workdir)
    train(tiny_config("satmips", "--config.eval.every=4"), workdir)
    assert "starts again from step 0" in caplog.text
    jax.tree.map(np.testing.assert_array_equal, *map(load_state, (workdir, tiny_run)))
    steps = [[row["step"] for row in read_rows(f / "metrics.jsonl")] for f in (workdir, tiny_run)]
    assert steps[0] == steps[1]
    assert [path.name for path in (workdir / "damaged").iterdir()] == ["2"]


def test_a_run_whose_later_checkpoints_are_damaged_does_not_start_again(
    tiny_run, tiny_config, tmp_path
):
    workdir = tmp_path / "run"
    shutil.copytree(tiny_run, workdir)
    tear_checkpoints(workdir)
    with pytest.raises(CheckpointError, match=r"no checkpoint .* is intact"):
        train(tiny_config("satmips", "--config.eval.every=4"), workdir)
    assert {path.name for path in (workdir / "checkpoints").iterdir()} == {"2", "4"}


def test_a_resumed_run_makes_up_for_a_missing_score(tiny_run, tiny_config, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(tiny_run, workdir)
    path = workdir / "metrics.jsonl"
    rows = read_rows(path)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows if "loss" in row))
    train(tiny_config("satmips", "--config.eval.every=4"), workdir)
    (scores,) = [row for row in read_rows(path) if "knn_image" in row]
    expected = next(row for row in rows if "knn_image" in row)
    assert scores == pytest.approx(expected | {"time": scores["time"]})


def test_a_loss_that_is_not_finite_ends_the_run_and_names_the_images(
    tiny_config, tiny_shards, tmp_path
):
    config = tiny_config("simclr", "--config.optimizer.learning_rate=1e30")
    with pytest.raises(NotFiniteError, match=r"step [234]: loss is") as caught:
        train(config, tmp_path)
    message = str(caught.value)
    assert "Last good checkpoint: step 2" in message or "Last good checkpoint: none" in message
    named = [line.strip() for line in message.splitlines() if line.startswith("  ")]
    assert len(set(named) & set(tiny_shards.ids(range(len(tiny_shards))))) == 16


def test_a_finished_run_returns_at_once(tiny_run, tiny_config):
    config = tiny_config("satmips", "--config.eval.every=4")
    assert int(train(config, tiny_run).step) == 4


def test_a_config_that_cannot_work_is_refused_before_compiling(tiny_config, tiny_run, tmp_path):
    with pytest.raises(ValueError, match=r"batch_size is 12.*8 devices: use 8 or 16"):
        train(tiny_config("satmips", "--config.optimizer.batch_size=12"), tmp_path)
    with pytest.raises(ConfigError, match=r"optimizer.weight_decay: 0.1 -> 0.2"):
        train(
            tiny_config("satmips", "--config.eval.every=4", "--config.optimizer.weight_decay=0.2"),
            tiny_run,
        )
    with pytest.raises(ConfigError, match=r"data\.dir is empty"):
        train(tiny_config("satmips", "--config.data.dir="), tmp_path / "new")


def test_files_of_a_run(tiny_run):
    rows = [json.loads(line) for line in (tiny_run / "metrics.jsonl").read_text().splitlines()]
    steps = [row["step"] for row in rows if "loss" in row]
    assert steps == [1, 2, 3, 4]
    for row in rows:
        if "loss" in row:
            assert row["loss"] == pytest.approx(row["simclr_loss"] + row["satmip_loss"], rel=1e-5)
    (scores,) = [row for row in rows if "knn_image" in row]
    assert scores["step"] == 4
    assert {"knn_image", "knn_metadata", "knn_both"} <= scores.keys()
    assert any((tiny_run / "tensorboard").iterdir())
    (start,) = [json.loads(s) for s in (tiny_run / "environment.jsonl").read_text().splitlines()]
    assert (start["step"], start["devices"], start["device_kind"]) == (0, 8, "cpu")
    assert start["versions"]["jax"] == jax.__version__


def test_a_checkpoint_of_another_model_is_refused_leaf_by_leaf(tiny_run, tiny_config, tiny_shards):
    config = tiny_config("satmips", "--config.method.embed_dim=12")
    mesh = make_mesh()
    abstract = build_program(config, tiny_shards.schema, len(tiny_shards), mesh).abstract
    with (
        Checkpoints(tiny_run, read_only=True) as checkpoints,
        pytest.raises(CheckpointError, match=r"params\.heads_image\.linear\.kernel.*\[32, 8\]"),
    ):
        checkpoints.restore(abstract)
    with pytest.raises(CheckpointError, match="train first"):
        Checkpoints(tiny_run / "nothing", read_only=True)
