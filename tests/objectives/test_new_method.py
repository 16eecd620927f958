"""A new method is one file and one line: every command then works with it."""

import json

import jax
import pytest
from rich.console import Console

from satmip_jax.config.conversion import from_json, to_json
from satmip_jax.config.defaults import default_config
from satmip_jax.config.loading import load_config, load_method_configs
from satmip_jax.distributed.sharding import make_mesh
from satmip_jax.errors import ConfigError
from satmip_jax.evaluation.evaluate import evaluate
from satmip_jax.objectives import METHODS
from satmip_jax.planning import memory
from satmip_jax.planning.dry_run import diagnose
from satmip_jax.planning.flops import step_flops
from satmip_jax.report.page import write_report
from satmip_jax.training.loop import train
from satmip_jax.training.step import build_program
from tests.objectives.toy_method import Toy


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    monkeypatch.setitem(METHODS, "toy", Toy)


def test_options_of_a_new_method_are_options_of_configs(tiny_config):
    assert default_config().method.toy_dim == 8
    config = tiny_config("toy", "--config.method.toy_dim=6")
    assert (config.method.name, config.method.toy_dim) == ("toy", 6)
    assert from_json(to_json(config)).method.toy_dim == 6
    assert "toy" in load_method_configs("configs/eurosat.py:cpu", [], list(METHODS))
    with pytest.raises(ConfigError, match=r"config.method.toy_scale is -1.0; it must be above 0"):
        tiny_config("toy", "--config.method.toy_scale=-1")


def test_flops_and_memory_of_a_new_method_are_those_by_hand(tiny_config, tiny_shards):
    config = tiny_config("toy", "--config.method.toy_dim=6")
    program = build_program(config, tiny_shards.schema, 64, make_mesh())
    batch, width, out = 16, 32, 6
    parts = step_flops(program)
    assert parts["loss"] == 3 * 2 * batch * batch * out
    assert parts["heads"] == 3 * batch * 2 * (2 * width * out)  # two views
    assert "metadata encoder" not in parts
    # two directions, each 2 rows of 16 scores per device, three float32 arrays
    assert memory.score_bytes(program) == 2 * 3 * 4 * 2 * 16
    facts = {quantity: value for _, quantity, value in diagnose(config).facts}
    assert facts["negatives, toy"] == "15 per anchor, exchange gather"


@pytest.mark.slow
def test_a_new_method_trains_is_scored_and_reported(tiny_config, tiny_shards_dir, tmp_path):
    workdir = tmp_path / "run"
    state = train(tiny_config("toy"), workdir)
    assert "log_scale" in state.params  # learned without a metadata encoder
    assert not any("metadata_encoder" in name for name in state.params)
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert {"toy_loss", "toy_accuracy", "logit_scale"} <= rows[-1].keys()
    scores = evaluate(workdir, str(tiny_shards_dir), protocols=["knn5"])
    assert {score.features for score in scores} == {"image"}
    page = tmp_path / "report.html"
    write_report([workdir], page)
    text = page.read_text()
    assert "Toy Views mu/8" in text
    assert "Toy Views 15" in text  # negatives per anchor
    assert "in-batch retrieval accuracy of" in text  # not of predictions


def test_an_unknown_method_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"'toys'; choose one of simclr, .*, toy"):
        load_config("configs/eurosat.py", ["--config.method.name=toys"])


def test_doctor_ends_with_a_verdict(tiny_config, capsys):
    diagnosis = diagnose(tiny_config("toy"), devices=1)
    diagnosis.show(Console())
    assert "no problems found" in capsys.readouterr().out
    diagnosis.problems.append("the disk is full")
    diagnosis.show(Console())
    assert "error: the disk is full" in capsys.readouterr().out
    assert jax.device_count() == 8
