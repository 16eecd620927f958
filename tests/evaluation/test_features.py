"""Features of a split: independent of batches, and read with bounded memory."""

import threading
import weakref
from dataclasses import replace

import jax
import numpy as np
import pytest

from satmip_jax.data import batch_reader
from satmip_jax.data.batch_reader import ReadBatch, read_all
from satmip_jax.data.shard_dataset import ShardDataset
from satmip_jax.distributed.sharding import make_mesh
from satmip_jax.evaluation import baselines
from satmip_jax.evaluation.baselines import BASELINES, extract_baseline
from satmip_jax.evaluation.features import extract, extract_each, make_encoder
from satmip_jax.evaluation.loading import load_model
from satmip_jax.evaluation.model import Model
from satmip_jax.metadata import tabular
from satmip_jax.metadata.fields import select_fields
from satmip_jax.training.step import build_program
from tests.augmentation.test_geometry import pil_crop

BATCH = 8
READ_AHEAD = 4  # batches, with one thread


@pytest.fixture(scope="module")
def model(tiny_run):
    return load_model(tiny_run)


@pytest.fixture(scope="module")
def val(tiny_shards_dir):
    return ShardDataset(tiny_shards_dir, "val")


class ImageCounter:
    """Counts the decoded images that are held at the same time."""

    def __init__(self):
        self.held = self.total = self.peak = 0
        self._lock = threading.Lock()

    def watch(self, images):
        with self._lock:
            self.held += len(images)
            self.total += len(images)
            self.peak = max(self.peak, self.held)
        weakref.finalize(images, self._release, len(images))

    def _release(self, count):
        with self._lock:
            self.held -= count


@pytest.fixture
def counter(monkeypatch):
    counter, read = ImageCounter(), ReadBatch.__call__

    def counted(self, numbers):
        batch = read(self, numbers)
        counter.watch(batch["image"])
        return batch

    monkeypatch.setattr(ReadBatch, "__call__", counted)
    monkeypatch.setattr(batch_reader.os, "cpu_count", lambda: 1)
    monkeypatch.setattr(baselines, "CHUNK", BATCH)
    return counter


def test_features_are_those_of_the_normalized_image_and_its_metadata(tiny_config, val):
    """Views of half the stored side: resized as by PIL, with pixels of twice the size."""
    schema = val.schema
    config = tiny_config("satmip", "--config.image.size=16", "--config.metadata.fields=all")
    mesh = make_mesh(jax.devices()[:1])
    program = build_program(config, schema, 64, mesh)
    model = Model(config, schema, program.towers, program.init().params, mesh)
    features = extract(model, val)

    batch, rows = read_all(val), range(len(val))
    pixels = np.stack([pil_crop(image, (0, 0, 32, 32), 16) for image in batch["image"]])
    views = (pixels - np.array(schema.image_mean)) / np.array(schema.image_std)
    full = (0.0, 0.0, 32.0, 32.0)
    records = [val[row]["metadata"].crop_resize(full, (32, 32), 16) for row in rows]

    def encode(kind, inputs):
        encoder = jax.jit(lambda x: model.towers.apply({"params": model.params}, x, method=kind))
        return encoder(inputs)

    image = encode("encode_image", np.float32(views))
    metadata = encode("encode_metadata", tabular.encode(records, schema))
    np.testing.assert_allclose(features.by_kind["image"], image, rtol=1e-4, atol=2e-5)
    np.testing.assert_allclose(features.by_kind["metadata"], metadata, rtol=1e-4, atol=2e-5)
    assert features.labels.tolist() == [val[row]["label"] for row in rows]
    assert features.indices.tolist() == list(rows)
    locations = [val[row]["metadata"].values.get("location", (np.nan, np.nan)) for row in rows]
    np.testing.assert_allclose(features.locations, locations, rtol=1e-6)


def test_a_batch_is_never_larger_than_the_split(model, val, counter):
    config = model.config.copy_and_resolve_references()
    with config.unlocked():
        config.eval.batch_size = 10**9
    features = extract(replace(model, config=config), val)
    assert len(features.labels) == counter.total == 24


def test_extract_holds_few_images_at_a_time(model, tiny_shards, counter):
    model.config.eval.unlock()
    before, model.config.eval.batch_size = model.config.eval.batch_size, BATCH
    try:
        features = extract(model, tiny_shards)
    finally:
        model.config.eval.batch_size = before
    assert len(features.labels) == counter.total == 64
    assert counter.peak <= READ_AHEAD * BATCH


@pytest.mark.parametrize("name", BASELINES)
def test_baselines_hold_few_images_at_a_time(name, tiny_shards, counter):
    features = extract_baseline(BASELINES[name], tiny_shards)
    assert len(features.labels) == counter.total == 64
    assert counter.peak <= READ_AHEAD * BATCH


def test_fields_that_are_not_shown_do_not_matter(model, val):
    everything, time = extract(model, val), extract(model, val, fields=select_fields("Time"))
    np.testing.assert_array_equal(time.by_kind["image"], everything.by_kind["image"])
    assert np.abs(time.by_kind["metadata"] - everything.by_kind["metadata"]).max() > 1e-3


def test_selections_of_fields_share_the_image_features(model, val):
    selections = [select_fields("Time"), select_fields("all-leak")]
    each = extract_each(model, val, selections)
    assert each[0].by_kind["image"] is each[1].by_kind["image"]
    for found, fields in zip(each, selections, strict=True):
        alone = extract(model, val, fields=fields)
        for kind in ("image", "metadata"):
            np.testing.assert_array_equal(found.by_kind[kind], alone.by_kind[kind])


def test_features_are_deterministic(model, val):
    one, two = extract(model, val), extract(model, val)
    for kind, array in one.by_kind.items():
        np.testing.assert_array_equal(array, two.by_kind[kind])
        assert np.isfinite(array).all()
        assert array.std(axis=0).max() > 0


def test_a_limit_spreads_the_examples_over_the_split(model, tiny_shards):
    everything, part = extract(model, tiny_shards), extract(model, tiny_shards, limit=10)
    assert part.indices.tolist() == [0, 6, 12, 19, 25, 32, 38, 44, 51, 57]
    np.testing.assert_array_equal(part.labels, everything.labels[part.indices])
    np.testing.assert_allclose(
        part.by_kind["image"], everything.by_kind["image"][part.indices], rtol=1e-5, atol=1e-6
    )


def test_untrained_features_are_others(model, tiny_run, val):
    trained, untrained = extract(model, val), extract(load_model(tiny_run, init="random"), val)
    for kind in ("image", "metadata"):
        assert np.abs(trained.by_kind[kind] - untrained.by_kind[kind]).max() > 1e-4


def test_splits_and_scores_of_a_run_share_a_compiled_encoder(model, val, tiny_shards):
    first = replace(model, encoders={})
    extract(first, tiny_shards, limit=24)
    doubled = jax.tree.map(lambda x: jax.device_put(2 * x, x.sharding), model.params)
    later = extract(replace(first, params=doubled), val)
    (encoder,) = first.encoders.values()
    assert encoder._cache_size() == 1
    assert make_encoder(first, 32) is encoder is not make_encoder(first, 64)
    expected = extract(replace(model, params=doubled, encoders={}), val)
    np.testing.assert_array_equal(later.by_kind["image"], expected.by_kind["image"])
