"""Baselines against plain numpy, and against reference scores on real images."""

import csv
import zipfile

import cv2
import numpy as np
import pytest

from satmip_jax.data.batch_reader import read_all
from satmip_jax.evaluation import baselines
from satmip_jax.evaluation.baselines import (
    BASELINES,
    colour_statistics,
    extract_baseline,
    patch_projections,
)
from satmip_jax.evaluation.fusion import standardize
from satmip_jax.evaluation.knn import knn_predict
from satmip_jax.evaluation.metrics import accuracy
from satmip_jax.metadata.tabular import locations, raw_features, raw_numbers


def noise(n: int, side: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, side, side, 3), np.uint8)


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(baselines, "CHUNK", 4)


@pytest.mark.usefixtures("small_chunks")
def test_colour_statistics():
    images = noise(10, 9)
    pixels = images.reshape(10, -1, 3) / 255
    features = colour_statistics(images)
    assert features.dtype == np.float32
    expected = np.concatenate([pixels.mean(axis=1), pixels.std(axis=1)], axis=1)
    np.testing.assert_allclose(features, expected, atol=1e-6)


@pytest.mark.usefixtures("small_chunks")
def test_patch_projections_are_pooled_answers_of_patches(monkeypatch):
    filters = np.random.default_rng(1).normal(size=(8, 8, 3, 256)).astype(np.float32)
    monkeypatch.setattr(baselines.jax.random, "normal", lambda *_: filters)
    images = noise(6, 27)  # three pixels are left over
    features = patch_projections(images)
    pixels = images / 255 - 0.5
    patches = [
        pixels[:, y : y + 8, x : x + 8].reshape(6, -1) for y in (0, 8, 16) for x in (0, 8, 16)
    ]
    answers = np.maximum(np.stack(patches, axis=1) @ filters.reshape(-1, 256) / 192**0.5, 0)
    expected = np.concatenate([answers.mean(axis=1), answers.std(axis=1)], axis=1)
    np.testing.assert_allclose(features, expected, atol=1e-5)


def test_baselines_describe_what_their_names_say(tiny_shards):
    split = read_all(tiny_shards)
    pixels = split["image"].reshape(64, -1, 3).astype(np.float64)
    mean, deviation = pixels.mean(axis=1), pixels.std(axis=1)
    colour = np.concatenate([mean, deviation], axis=1) / 255
    extremes = [pixels.max(axis=1), pixels.min(axis=1)]
    expected = {
        "colour": colour,
        "imagestats": np.concatenate([mean, deviation, *extremes], axis=1),
        "patches": patch_projections(split["image"]),
        "fields": colour,  # beside the metadata
    }
    for name, values in expected.items():
        found = BASELINES[name].describe(split, tiny_shards.schema, "all")["image"]
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, values, rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("name", BASELINES)
def test_batches_of_a_split_give_the_values_of_all_at_once(name, tiny_shards, monkeypatch):
    """Bit for bit, whatever the size of a batch."""
    split = read_all(tiny_shards)
    expected = BASELINES[name].describe(split, tiny_shards.schema, "all")
    for chunk in (512, 24, 7):
        monkeypatch.setattr(baselines, "CHUNK", chunk)
        features = extract_baseline(BASELINES[name], tiny_shards)
        assert features.by_kind.keys() == expected.keys()
        for kind, values in expected.items():
            np.testing.assert_array_equal(features.by_kind[kind], values)
        np.testing.assert_array_equal(features.labels, split["label"])
        np.testing.assert_array_equal(features.locations, locations(split["metadata"]))
        assert features.indices.tolist() == list(range(64))


@pytest.mark.parametrize("name", ["fields", "numbers"])
def test_fields_that_are_not_selected_are_not_in_the_features(name, tiny_shards):
    split, schema = read_all(tiny_shards), tiny_shards.schema
    sizes = {}
    for fields in ("Location", "cloud_cover", "all-leak"):
        found = extract_baseline(BASELINES[name], tiny_shards, fields=fields).by_kind["metadata"]
        selected = schema.select_fields(fields)
        if name == "numbers":
            expected = raw_numbers(split["metadata"], selected)
        else:
            expected = raw_features(split["metadata"], schema, selected)
        np.testing.assert_array_equal(found, expected)
        sizes[fields] = found.shape[1]
    assert sizes["cloud_cover"] == 1 < sizes["Location"] < sizes["all-leak"]


def test_projections_are_a_function_of_the_seed():
    images = noise(3, 16)
    np.testing.assert_array_equal(patch_projections(images), patch_projections(images, seed=0))
    assert np.abs(patch_projections(images) - patch_projections(images, seed=1)).max() > 0.01


def test_standardize_by_the_statistics_of_train():
    rng = np.random.default_rng(0)
    train, other = rng.normal(3, 2, (50, 4)), rng.normal(3, 2, (20, 4))
    train[:, 2] = 0.1  # constant
    ours = standardize(train, other)
    assert [x.dtype for x in ours] == [np.float32] * 2
    keep = [0, 1, 3]
    np.testing.assert_allclose(ours[0].mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(ours[0].std(axis=0)[keep], 1, atol=1e-6)
    np.testing.assert_allclose(ours[0][:, 2], 0, atol=1e-12)
    expected = (other - train.mean(axis=0))[:, keep] / train.std(axis=0)[keep]
    np.testing.assert_allclose(ours[1][:, keep], expected, atol=1e-5)
    assert np.abs(ours[1][:, 2]).max() < 10


@pytest.mark.usefixtures("no_type_checks")
@pytest.mark.parametrize(
    "images", [noise(2, 9).astype(np.float32), noise(2, 9)[0], noise(2, 9)[..., :2], noise(2, 7)]
)
def test_images_of_another_kind_are_refused(images):
    for function in (colour_statistics, patch_projections):
        with pytest.raises(ValueError, match="expected"):
            function(images)


@pytest.mark.usefixtures("no_type_checks")
def test_no_images():
    assert colour_statistics(noise(0, 8)).shape == (0, 6)
    assert patch_projections(noise(0, 8)).shape == (0, 512)
    with pytest.raises(ValueError, match="rows above 0"):
        standardize(np.zeros((0, 3)), np.zeros((2, 3)))


def test_reference_scores_on_eurosat(real_data):
    """A quarter of the chips, spatial split; of all: see the module's docstring."""
    with (real_data / "eurosat" / "eurosat_metadata.csv").open() as file:
        rows = {row["filename"].split("/")[-1]: row for row in csv.DictReader(file)}
    images, labels, splits = [], [], []
    classes = sorted({row["label"] for row in rows.values()})
    for path in sorted((real_data / "eurosat").glob("*.zip")):
        with zipfile.ZipFile(path) as archive:
            for name in sorted(archive.namelist())[::4]:
                if (row := rows.get(name.split("/")[-1])) is None:
                    continue
                encoded = np.frombuffer(archive.read(name), np.uint8)
                images.append(cv2.imdecode(encoded, cv2.IMREAD_COLOR_RGB))
                labels.append(classes.index(row["label"]))
                splits.append(row["split_spatial"])
    images, labels, train = np.stack(images), np.array(labels), np.array(splits) == "train"
    assert len(images) > 5000
    for function, expected in ((colour_statistics, 0.635), (patch_projections, 0.701)):
        features = function(images)
        bank, queries = standardize(features[train], features[~train])
        predicted = knn_predict(bank, labels[train], queries, num_classes=len(classes))
        assert accuracy(labels[~train], predicted) == pytest.approx(expected, abs=0.01)
