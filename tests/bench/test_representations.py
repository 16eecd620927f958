"""Representations of the metadata: each is what its name says."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from click.testing import CliRunner

from satmip_jax.bench import representations as module
from satmip_jax.bench.representations import CHOSEN, bench, representations
from satmip_jax.cli import cli
from satmip_jax.data.batch_reader import ReadBatch
from satmip_jax.data.shard_dataset import ShardDataset
from satmip_jax.errors import SatmipError
from satmip_jax.evaluation import loading
from satmip_jax.evaluation.evaluate import evaluate
from satmip_jax.evaluation.features import extract, of_whole_image
from satmip_jax.evaluation.loading import load_model
from satmip_jax.evaluation.model import Model
from satmip_jax.metadata import tabular
from satmip_jax.metadata.record import Metadata
from satmip_jax.models.ft_transformer import FTBlock
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


def changed(model, **metadata):
    """The same model with another, untrained metadata encoder, in float32, for views of 16 px."""
    config = model.config.copy_and_resolve_references()
    with config.unlocked():
        config.metadata.update(metadata)
        config.dtype, config.image.size = "float32", 16
    towers = build_towers(config, model.schema, build_method(config))
    encoder = towers.metadata_encoder
    arrays = tabular.encode([Metadata({})], model.schema)
    own = jax.jit(encoder.init)(jax.random.key(3), arrays)["params"]
    params = {**jax.device_get(model.params), "metadata_encoder": jax.device_get(own)}
    return replace(model, config=config, towers=towers, params=params, encoders={})


def test_each_is_that_of_the_blocks_one_by_one(tiny_run, tiny_shards_dir):
    """Every block applied to all tokens, as in a plain Transformer."""
    dataset = ShardDataset(tiny_shards_dir, "val")
    model = changed(load_model(tiny_run), depth=3)
    batch = jax.device_put(ReadBatch(dataset, model.schema)(range(8))["metadata"])
    tower = model.towers.metadata_encoder
    params, own = model.params, model.params["metadata_encoder"]
    found = jax.device_get(jax.jit(partial(representations, model))(params, batch))

    weights, transformer = own["transformer"], tower.transformer

    @jax.jit
    def forward(batch):
        tokens = tower.apply(
            {"params": own},
            batch,
            capture_intermediates=lambda module, _: module.name == "tokenizer",
            mutable=["intermediates"],
        )[1]["intermediates"]["transformer"]["tokenizer"]["__call__"][0]
        token = jnp.broadcast_to(weights["cls_token"], (8, 1, 16))
        layers = [jnp.concatenate([token, tokens], axis=1)]
        for i in range(3):
            block = FTBlock(2, int(16 * transformer.ffn_factor), i == 0, None, 0, 0, "einsum", "f4")
            layers.append(block.apply({"params": weights[f"block{i}"]}, layers[-1]))
        return layers

    *_, before, last = jax.device_get(forward(batch))
    kernel = next(iter(jax.tree.leaves(params["heads_metadata"])))
    expected = {
        "class token before the norm": last[:, 0],
        "mean of the fields' tokens": last[:, 1:].mean(axis=1),
        "their mean one block earlier": before[:, 1:].mean(axis=1),
        "projection": found[CHOSEN] @ kernel,
    }
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, atol=1e-5, err_msg=name)


def test_the_whole_images_of_both_splits_are_scored(tiny_run, tiny_shards_dir, monkeypatch):
    """Views smaller than the stored images; the bank is train, in cells of the given size."""
    model, scored = changed(load_model(tiny_run), fields="all"), {}

    def score(bank, queries, **options):
        scored.update(options, bank=bank, queries=queries)
        return []

    monkeypatch.setattr(module, "score", score)
    bench(model, str(tiny_shards_dir), protocols=["knn5"], block=2.5)
    for name, split in (("bank", "train"), ("queries", "val")):
        dataset, found = ShardDataset(tiny_shards_dir, split), scored[name]
        assert found.indices.tolist() == list(range(len(dataset)))
        assert found.labels.tolist() == [dataset[i]["label"] for i in range(len(dataset))]
    full, records = (0.0, 0.0, 32.0, 32.0), [dataset[i]["metadata"] for i in range(24)]
    arrays = tabular.encode([r.crop_resize(full, (32, 32), 16) for r in records], model.schema)
    expected = jax.jit(partial(model.towers.apply, method="encode_metadata"))(
        {"params": model.params}, arrays
    )
    np.testing.assert_allclose(scored["queries"].by_kind[CHOSEN], expected, atol=1e-4)
    assert (scored["block"], scored["protocols"]) == (2.5, ["knn5"])
    assert scored["dataset"].split == "val"


def test_the_command_passes_its_options_on(monkeypatch):
    called = {}
    monkeypatch.setattr(loading, "load_model", lambda name, init: called.update(init=init) or name)
    monkeypatch.setattr(module, "bench", lambda *given, **options: called.update(options) or [])
    command = ["bench", "representations", "runs/a", "--data", "x"]
    options = ["--init", "random", "--protocols", "knn5,precision10", "--block", "0.5"]
    run = CliRunner().invoke(cli, [*command, *options], catch_exceptions=False)
    assert run.exit_code == 0
    assert called == {"init": "random", "protocols": ["knn5", "precision10"], "block": 0.5}
