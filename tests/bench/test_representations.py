"""Representations of the metadata: each is what its name says."""

import jax
import numpy as np
import pytest

from satmip_jax.bench.representations import CHOSEN, bench, representations
from satmip_jax.data.batch_reader import ReadBatch
from satmip_jax.data.shard_dataset import ShardDataset
from satmip_jax.errors import SatmipError
from satmip_jax.evaluation.evaluate import evaluate
from satmip_jax.evaluation.features import extract, of_whole_image
from satmip_jax.evaluation.loading import load_model
from satmip_jax.evaluation.model import Model
from satmip_jax.models.towers import build_towers
from satmip_jax.objectives import build_method


def test_the_chosen_one_is_what_evaluation_scores(tiny_run, tiny_shards_dir):
    model, dataset = load_model(tiny_run), ShardDataset(tiny_shards_dir, "val")
    batch = jax.device_put(ReadBatch(dataset, model.schema)(range(24))["metadata"])
    whole = of_whole_image(model, batch, dataset.schema.image_size)
    found = jax.device_get(representations(model, model.params, whole))
    encoded = extract(model, dataset).by_kind["metadata"]
    np.testing.assert_allclose(found[CHOSEN], encoded, atol=1e-5)
    norm = jax.device_get(model.params["metadata_encoder"]["transformer"]["norm"])
    before = np.asarray(found["class token before the norm"], np.float64)
    scale = np.sqrt(before.var(axis=1, keepdims=True) + 1e-5)
    normed = (before - before.mean(axis=1, keepdims=True)) / scale
    np.testing.assert_allclose(normed * norm["scale"] + norm["bias"], encoded, atol=1e-4)
    assert len({np.round(x, 4).tobytes() for x in found.values()}) == 5


def test_every_representation_is_scored(tiny_run, tiny_shards_dir):
    model = load_model(tiny_run)
    data = str(tiny_shards_dir)
    rows = bench(model, data, protocols=["knn5"], block=0)
    assert len({row.features for row in rows}) == len(rows) == 5
    (own,) = evaluate(tiny_run, data, features=["metadata"], protocols=["knn5"], block=0)[:1]
    assert (rows[0].features, rows[0].value) == (CHOSEN, own.value)


def test_a_model_without_metadata_is_refused(tiny_config, tiny_shards_dir):
    config, schema = tiny_config("simclr"), ShardDataset(tiny_shards_dir, "train").schema
    towers = build_towers(config, schema, build_method(config))
    model = Model(config, schema, towers, {}, mesh=jax.sharding.Mesh(jax.devices()[:1], "data"))
    with pytest.raises(SatmipError, match="no tabular encoder"):
        bench(model, str(tiny_shards_dir), protocols=["knn5"], block=0)
