"""The model of a run as it is loaded for evaluation."""

import jax
import numpy as np
import pytest

from satmip_jax.checkpoints.integrity import named_leaves
from satmip_jax.data.shard_dataset import ShardDataset
from satmip_jax.distributed.sharding import make_mesh
from satmip_jax.evaluation import model as model_module
from satmip_jax.evaluation.features import extract
from satmip_jax.evaluation.loading import ModelError, load_model
from satmip_jax.evaluation.model import evaluation_mesh
from satmip_jax.training.loop import train
from satmip_jax.training.step import build_program
from tests.conftest import load_state


@pytest.fixture(scope="module")
def sharded_run(tiny_config, tmp_path_factory):
    """Workdir of a finished run with parameters sharded over 4 of 8 devices."""
    workdir = tmp_path_factory.mktemp("sharded")
    options = ("--config.parallel.fsdp=4", "--config.optimizer.images=32", "--config.eval.every=2")
    train(tiny_config("satmips", *options), workdir)
    return workdir


def test_trained_params_are_those_of_the_state(tiny_run):
    model = load_model(tiny_run)
    jax.tree.map(np.testing.assert_array_equal, model.params, load_state(tiny_run).params)
    assert model.name == "satmips mu/8"


def test_random_params_are_those_that_training_starts_from(tiny_run, tiny_shards):
    model = load_model(tiny_run, init="random")
    program = build_program(model.config, model.schema, len(tiny_shards), make_mesh())
    jax.tree.map(np.testing.assert_array_equal, model.params, program.init().params)


def test_a_run_without_checkpoints(tmp_path):
    with pytest.raises(ModelError, match="train first: `satmip train"):
        load_model(tmp_path)


def test_params_are_sharded_as_in_training(sharded_run, tiny_shards_dir, monkeypatch, caplog):
    sharded = load_model(sharded_run)
    assert sharded.mesh.shape == {"data": 2, "fsdp": 4}
    named = named_leaves(sharded.params)
    kernel = next(x for name, x in named.items() if name.endswith("fc1.kernel"))
    assert kernel.addressable_shards[0].data.size * 4 == kernel.size
    assert "replicated" not in caplog.text
    monkeypatch.setattr(model_module, "evaluation_mesh", lambda config: make_mesh())
    replicated = load_model(sharded_run)
    dataset = ShardDataset(tiny_shards_dir, "val")
    one, two = (extract(model, dataset) for model in (sharded, replicated))
    np.testing.assert_array_equal(one.labels, two.labels)
    for kind, outputs in two.by_kind.items():
        np.testing.assert_allclose(one.by_kind[kind], outputs, rtol=1e-4, atol=1e-5)


def test_params_are_replicated_where_the_devices_do_not_divide(tiny_config, caplog):
    mesh = evaluation_mesh(tiny_config("satmips", "--config.parallel.fsdp=3"))
    assert mesh.shape == {"data": 8, "fsdp": 1}
    assert "config.parallel.fsdp is 3, which does not divide the 8 devices" in caplog.text
