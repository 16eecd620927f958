"""Features of every record, in order, on any device order."""

import dataclasses

import jax
import numpy as np
import pytest

from satmip_jax.data.bad_records import BadRecordsError
from satmip_jax.data.shard_dataset import ShardDataset
from satmip_jax.data.shard_format import ShardError
from satmip_jax.distributed.sharding import make_mesh
from satmip_jax.evaluation.baselines import BASELINES, extract_baseline
from satmip_jax.evaluation.evaluate import knn_accuracy
from satmip_jax.evaluation.features import FeaturesError, extract, select_valid
from satmip_jax.evaluation.model import Model
from satmip_jax.training.step import build_program
from tests.distributed.test_sharding import permuted_mesh


class PartlyBad(ShardDataset):
    """A split, some of whose records cannot be read."""

    BAD = (0, 5, 63)

    def __getitem__(self, index):
        if int(index) in self.BAD:
            raise ShardError(f"record {index}: damaged")
        return super().__getitem__(index)


@pytest.fixture(scope="module")
def model_on(tiny_config, tiny_shards):
    """Make a model with the same parameters on a mesh."""

    def make(mesh, method="simclr"):
        config = tiny_config(method)
        program = build_program(config, tiny_shards.schema, len(tiny_shards), mesh)
        return Model(config, tiny_shards.schema, program.towers, program.init().params, mesh)

    return make


@pytest.fixture(scope="module")
def model(model_on):
    return model_on(make_mesh())


def test_features_are_the_same_on_permuted_devices(model, model_on, tiny_shards):
    other = model_on(permuted_mesh())
    one, two = (extract(m, tiny_shards, limit=50) for m in (model, other))  # not full batches
    jax.tree.map(np.testing.assert_array_equal, dataclasses.asdict(one), dataclasses.asdict(two))
    assert len(one.indices) == 50


@pytest.mark.slow
def test_scores_are_the_same_on_permuted_devices(model_on):
    models = [model_on(mesh, "satmips") for mesh in (make_mesh(), permuted_mesh())]
    scores = [knn_accuracy(model) for model in models]
    assert scores[0] == scores[1]


@pytest.mark.parametrize("limit", [None, 20])
def test_bad_records_are_left_out_and_no_other(model, tiny_shards, tiny_shards_dir, limit):
    whole = extract(model, tiny_shards, limit=limit)
    partly = extract(model, PartlyBad(tiny_shards_dir, "train"), limit=limit)
    kept = ~np.isin(whole.indices, PartlyBad.BAD)
    assert partly.indices.tolist() == whole.indices[kept].tolist()
    np.testing.assert_array_equal(partly.labels, whole.labels[kept])
    np.testing.assert_array_equal(partly.locations, whole.locations[kept])
    for kind, features in partly.by_kind.items():
        np.testing.assert_array_equal(features, whole.by_kind[kind][kept])


def test_more_bad_records_than_the_config_allows_end_it(model, tiny_shards_dir):
    config = model.config.copy_and_resolve_references()
    with config.unlocked():
        config.data.bad_records = 2
    with pytest.raises(BadRecordsError):
        extract(dataclasses.replace(model, config=config), PartlyBad(tiny_shards_dir, "train"))


def test_baselines_leave_out_bad_records_and_no_other(tiny_shards, tiny_shards_dir):
    for baseline in (BASELINES["colour"], BASELINES["fields"]):
        whole = extract_baseline(baseline, tiny_shards)
        partly = extract_baseline(baseline, PartlyBad(tiny_shards_dir, "train"))
        kept = ~np.isin(whole.indices, PartlyBad.BAD)
        assert partly.indices.tolist() == whole.indices[kept].tolist()
        for kind, features in partly.by_kind.items():
            np.testing.assert_array_equal(features, whole.by_kind[kind][kept])


@pytest.mark.parametrize("index", [[4, 5], [4, 6, 5], [4, 5, 5]])
def test_missing_or_exchanged_features_raise(index):
    table = {
        "index": np.array(index),
        "valid": np.ones(len(index), bool),
        "label": np.zeros(len(index), np.int32),
        "location": np.zeros((len(index), 2), np.float32),
    }
    with pytest.raises(FeaturesError, match="missing, or they are out of order"):
        select_valid(table, np.array([4, 5, 6]))
