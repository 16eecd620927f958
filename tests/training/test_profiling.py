"""Traces of the JAX profiler."""

import json

import jax
import pytest

from satmip_jax.errors import ConfigError
from satmip_jax.training.loop import train
from satmip_jax.training.profiling import check_steps, parse_steps


def traced_steps(folder):
    """Numbers of the steps in the only trace of a folder."""
    (file,) = folder.rglob("*.xplane.pb")
    planes = jax.profiler.ProfileData.from_file(str(file)).planes
    events = (event for plane in planes for line in plane.lines for event in line.events)
    return {int(dict(event.stats)["step_num"]) for event in events if event.name == "train"}


def test_the_steps_asked_for_are_traced_and_the_results_are_the_same(
    tiny_run, tiny_config, tmp_path
):
    train(tiny_config("satmips", "--config.eval.every=4"), tmp_path, profile_steps=range(1, 3))
    assert traced_steps(tmp_path / "profile") == {1, 2}

    def rows(workdir):
        lines = (workdir / "metrics.jsonl").read_text().splitlines()
        return [{**json.loads(line), "images_per_second": None, "time": None} for line in lines]

    assert rows(tmp_path) == rows(tiny_run)


def test_a_resumed_run_traces_what_is_left(tiny_config, tmp_path, caplog):
    config = tiny_config("simclr")
    train(config, tmp_path)
    (tmp_path / "checkpoints" / "4").rename(tmp_path / "aside")
    train(config, tmp_path, profile_steps=range(1, 4))
    assert "steps 1 to 1 cannot be traced, as the run resumes at step 2" in caplog.text
    assert traced_steps(tmp_path / "profile") == {2, 3}


@pytest.mark.parametrize("text", ["", "3", "4:3", "-1:2", "1:2:3", "a:b", "1.5:2"])
def test_steps_that_make_no_sense_are_refused(text):
    with pytest.raises(ConfigError, match=r"--profile .*: give FIRST:LAST"):
        parse_steps(text)


def test_steps_beyond_the_end_are_refused_before_anything_is_compiled(tiny_config, tmp_path):
    with pytest.raises(ConfigError, match=r"--profile 2:4: this run has 4 steps.* one is 3"):
        train(tiny_config("simclr"), tmp_path, profile_steps=parse_steps("2:4"))
    check_steps(range(0), 4)
    check_steps(parse_steps("3:3"), 4)
