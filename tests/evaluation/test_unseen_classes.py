"""Banks that lack classes of the queries, or have few rows: they are scored, and notes say so."""

import copy
from dataclasses import replace

import numpy as np
import pytest

from satmip_jax.evaluation.features import Features
from satmip_jax.evaluation.protocols import score


def examples(labels, seed, *, place=None):
    rng = np.random.default_rng(seed)
    labels = np.array(labels, np.int32)
    image = rng.normal(0, 1, (len(labels), 4)) + labels[:, None]
    location = np.full((len(labels), 2), np.nan if place is None else place, np.float32)
    return Features({"image": image.astype(np.float32)}, labels, location, np.arange(len(labels)))


@pytest.fixture
def dataset(tiny_shards):
    data = copy.copy(tiny_shards)
    data.split = "val"
    data.schema = replace(tiny_shards.schema, classes=("a", "b", "y", "z"), class_weights={})
    return data


def scored(bank, queries, dataset):
    rows = score(bank, queries, kinds=["image"], dataset=dataset, model="m", bank_name="train")
    assert {row.protocol for row in rows} == {"knn5", "knn20-weighted", "linear", "precision10"}
    return [row for row in rows if row.metric == "accuracy"]


def test_classes_that_the_bank_lacks_are_named(dataset, caplog):
    rows = scored(examples([0, 1] * 15, 0), examples([0, 2, 3, 3], 1), dataset)
    note = "3 of 4 val images are of classes that train does not have (y, z)"
    assert {row.note for row in rows} == {note}
    assert note in caplog.text
    assert {row.majority for row in rows} == {0.25}  # the first of two equally frequent classes
    complete = scored(examples([0, 1] * 15, 0), examples([0, 1, 1, 1], 1), dataset)
    assert {row.note for row in complete} == {None}


def test_a_bank_of_one_class_gives_that_class(dataset):
    rows = scored(examples([1] * 30, 0), examples([1, 1, 1, 0], 1), dataset)
    assert {row.value for row in rows} == {row.majority for row in rows} == {0.75}
    assert all("train has one class (b)" in row.note for row in rows)


@pytest.mark.parametrize("place", [None, 7.5])
@pytest.mark.parametrize("labels", [[0, 1], [0, 0, 1], [0, 0, 0, 1, 1, 1]])
def test_few_rows_are_scored(labels, place, dataset):
    bank, queries = (examples(part, i, place=place) for i, part in enumerate([labels, [0, 1, 0]]))
    assert len(scored(bank, queries, dataset)) == 3
