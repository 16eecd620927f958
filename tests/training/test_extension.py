"""Finished runs that are extended: schedule, exact resumption, refusals."""

import math
import shutil

import jax
import numpy as np
import pytest

from satmip_jax.checkpoints.manager import Checkpoints
from satmip_jax.config.conversion import from_json
from satmip_jax.errors import ConfigError
from satmip_jax.evaluation.loading import load_model
from satmip_jax.training.loop import train
from satmip_jax.training.metrics_log import read_rows
from satmip_jax.training.optimizer import make_schedule
from tests.conftest import load_state

EVERY = "--config.eval.every=4"


def stored(workdir):
    return from_json((workdir / "config.json").read_text())


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, load_state(a), load_state(b))


def test_schedule_warms_up_again_and_decays_over_the_added_steps(tiny_config):
    config = tiny_config(
        "simclr",
        "--config.optimizer.images=3200",  # 200 steps; an epoch is 4 steps
        "--config.optimizer.warmup_epochs=3",
        "--config.optimizer.learning_rate=0.02",
        "--config.optimizer.extended_from=(50, 60)",
    )
    schedule = make_schedule(config, examples=64)
    for first, last, warmup in ((0, 50, 5), (50, 60, 1), (60, 200, 12)):
        for step in range(first, last):
            n, length = step - first, last - first
            rate = 0.02 * n / warmup
            if n >= warmup:
                rate = 0.01 * (1 + math.cos(math.pi * (n - warmup) / (length - warmup)))
            assert float(schedule(step)) == pytest.approx(rate, rel=1e-5, abs=1e-9), step
    assert float(schedule(200)) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("steps", ["(4, 4)", "(8,)", "(0,)", "(6, 4)"])
def test_extensions_must_lie_within_the_training(tiny_config, steps):
    config = tiny_config(
        "simclr", "--config.optimizer.images=128", f"--config.optimizer.extended_from={steps}"
    )
    with pytest.raises(ConfigError, match=r"must rise, from above 0 to below .* 8 steps"):
        make_schedule(config, examples=64)


@pytest.mark.slow
def test_an_extended_run_is_exact_however_it_is_interrupted(tiny_run, tiny_config, tmp_path):
    """Extended twice at once, with a restart in the second extension, and as one training."""
    once, again, fresh = (tmp_path / name for name in ("once", "again", "fresh"))
    first, second = ("--config.optimizer.images=128", "--config.optimizer.images=192")
    for workdir in (once, again):
        shutil.copytree(tiny_run, workdir)
        train(tiny_config("satmips", EVERY, first), workdir, extend=True)
        assert stored(workdir).optimizer.extended_from == (4,)
        assert load_model(workdir).planned == 8
    train(tiny_config("satmips", EVERY, second), once, extend=True)
    shutil.rmtree(again / "tensorboard")
    shutil.copytree(once, again, dirs_exist_ok=True)
    shutil.rmtree(again / "checkpoints" / "12")  # as if killed after step 10
    train(tiny_config("satmips", EVERY, second), again, extend=True)
    assert_same(once, again)
    train(
        tiny_config("satmips", EVERY, second, "--config.optimizer.extended_from=(4, 8)"),
        fresh,
    )
    assert_same(once, fresh)
    for workdir in (once, again, fresh):
        losses = [row for row in read_rows(workdir / "metrics.jsonl") if "loss" in row]
        assert [row["step"] for row in losses] == [*range(1, 13)]
    assert stored(once) == stored(fresh)


@pytest.fixture
def finished(tiny_run, tmp_path):
    """A finished run of 4 steps, to be changed."""
    return shutil.copytree(tiny_run, tmp_path / "run")


def test_a_longer_length_is_needed(finished, tiny_config):
    for images in (64, 32):
        config = tiny_config("satmips", EVERY, f"--config.optimizer.images={images}")
        with pytest.raises(ConfigError, match=r"4 steps, 64 images.* longer length.*images=128"):
            train(config, finished, extend=True)
    assert stored(finished).optimizer.extended_from == ()


def test_an_unfinished_run_is_refused(finished, tiny_config):
    shutil.rmtree(finished / "checkpoints" / "4")
    with pytest.raises(ConfigError, match=r"at step 2 of 4 steps.*without --extend"):
        train(tiny_config("satmips", "--config.optimizer.images=128"), finished, extend=True)
    assert stored(finished).optimizer.images == 64


def test_nothing_but_the_length_may_change(finished, tiny_config, tmp_path):
    longer = "--config.optimizer.images=128"
    with pytest.raises(ConfigError, match="seed: 0 -> 1"):
        train(tiny_config("satmips", longer, "--config.seed=1"), finished, extend=True)
    with pytest.raises(ConfigError, match="no run to extend"):
        train(tiny_config("satmips", longer), tmp_path / "nothing", extend=True)


@pytest.mark.slow
def test_the_command_without_extend_does_not_undo_an_extension(finished, tiny_config):
    """Old checkpoints of the time before it are still there."""
    longer = "--config.optimizer.images=96"
    train(tiny_config("satmips", longer), finished, extend=True)
    with Checkpoints(finished, read_only=True) as checkpoints:
        assert checkpoints.latest == 6
    for options in ((), (longer,)):
        with pytest.raises(ConfigError, match=r"extended_from: \(4,\) -> \(\)(?s:.*)add --extend"):
            train(tiny_config("satmips", *options), finished)
    assert stored(finished).optimizer.extended_from == (4,)
