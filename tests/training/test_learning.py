"""A short training learns: better neighbours than those of its untrained twin."""

import math
from dataclasses import replace

import jax
import numpy as np
import pytest

from satmip_jax.config.loading import load_config
from satmip_jax.data.loaders import InMemoryBatches
from satmip_jax.data.shard_dataset import ShardDataset
from satmip_jax.distributed.sharding import make_mesh
from satmip_jax.evaluation.evaluate import knn_accuracy
from satmip_jax.evaluation.model import Model
from satmip_jax.prepare.run import prepare
from satmip_jax.sources.registry import open_source
from satmip_jax.training.step import build_program
from tests.conftest import REPOSITORY

STEPS, BATCH = 200, 64


@pytest.mark.slow
def test_200_steps_raise_the_knn_accuracy_of_images_not_seen_before(tmp_path):
    source = open_source("synthetic", [tmp_path / "scenes"], train=600, val=300, size=64, seed=0)
    prepare(source, tmp_path / "shards", image_size=48, workers=0, progress=False)
    dataset, mesh = ShardDataset(tmp_path / "shards", "train"), make_mesh(jax.devices()[:1])
    config = load_config(
        f"{REPOSITORY / 'configs' / 'quickstart.py'}:satmips",
        [
            f"--config.data.dir={tmp_path / 'shards'}",
            "--config.image.encoder=mu/8",
            "--config.image.size=48",
            "--config.method.ssl_hidden=64",
            "--config.method.ssl_dim=32",
            "--config.method.embed_dim=32",
            "--config.metadata.width=32",
            "--config.metadata.heads=2",
            "--config.metadata.depth=1",
            f"--config.optimizer.batch_size={BATCH}",
            f"--config.optimizer.images={STEPS * BATCH}",
            "--config.optimizer.learning_rate=2e-3",
            "--config.eval.batch_size=100",
        ],
    )
    program = build_program(config, dataset.schema, len(dataset), mesh)
    model = Model(config, dataset.schema, program.towers, None, mesh)

    def score(state):
        with jax.transfer_guard("allow"):
            return knn_accuracy(replace(model, params=state.params))

    state, losses = program.init(), []
    untrained = score(state)
    with InMemoryBatches(dataset, mesh, batch_size=BATCH, seed=config.seed) as batches:
        for _ in range(STEPS):
            state, metrics = program.step(state, next(batches))
            losses.append(metrics["loss"])
    chance = math.log(2 * BATCH - 1) + math.log(BATCH)  # all negatives are as near as the positive
    assert np.mean(jax.device_get(losses[-20:])) < chance - 0.5
    trained = score(state)
    assert trained["knn_image"] > untrained["knn_image"] + 0.03, (untrained, trained)
