"""What is chosen on the bank, its weights and strengths, is chosen across places, or on `tune`."""

import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler

from satmip_jax.data.shard_dataset import ShardDataset
from satmip_jax.data.shard_format import ShardError
from satmip_jax.evaluation import evaluate as evaluate_module
from satmip_jax.evaluation.evaluate import evaluate_baseline, knn_accuracy
from satmip_jax.evaluation.features import Features
from satmip_jax.evaluation.fusion import WEIGHTS
from satmip_jax.evaluation.model import Model, evaluation_mesh
from satmip_jax.evaluation.protocols import PROTOCOLS, Protocol, score
from satmip_jax.evaluation.spatial_blocks import cells
from satmip_jax.models import build_towers
from satmip_jax.objectives import build_method

CELLS = 30
TUNED = np.arange(150) >= 90


def examples(n, seed):
    """Images tell the class a little, metadata the place; each place has one class."""
    rng = np.random.default_rng(seed)
    place = rng.integers(CELLS, size=n)
    labels = (place % 3).astype(np.int32)
    locations = np.stack([place + rng.uniform(0.1, 0.9, n), np.full(n, 0.5)], axis=1)
    image = np.eye(3)[labels] + rng.normal(0, 0.6, (n, 3))
    metadata = np.random.default_rng(9).normal(size=(CELLS, 8))[place]
    metadata += rng.normal(0, 0.2, (n, 8)) + 0.4 * np.eye(3, 8)[labels]
    by_kind = {"image": image.astype(np.float32), "metadata": metadata.astype(np.float32)}
    return Features(by_kind, labels, locations.astype(np.float32), np.arange(n))


@pytest.fixture(scope="module")
def parts():
    return examples(150, 0), examples(120, 1)


def vote(bank, labels, queries, barred=None):
    """The class of most of the 5 nearest by cosine, of equals the smallest."""
    x, y = (part / np.linalg.norm(part, axis=1, keepdims=True) for part in (bank, queries))
    distance = -y @ x.T
    if barred is not None:
        distance[barred] = np.inf
    nearest = labels[np.argsort(distance, axis=1)[:, :5]]
    return np.array([np.bincount(row).argmax() for row in nearest])


def by_hand(bank, queries, groups, rows):
    """Accuracy by weight, of `rows` by other groups of the bank, and that of the queries."""
    standard = {}
    for kind in ("image", "metadata"):
        scaler = StandardScaler().fit(bank.by_kind[kind].astype(np.float64))
        standard[kind] = [scaler.transform(x.by_kind[kind]) for x in (bank, queries)]
    chosen_by, scores = [], []
    for weight in WEIGHTS:
        x, y = (
            np.concatenate([i / np.sqrt(3), weight * m / np.sqrt(8)], axis=1)
            for i, m in zip(standard["image"], standard["metadata"], strict=True)
        )
        same = groups[rows][:, None] == groups
        chosen_by.append(np.mean(vote(x, bank.labels, x[rows], same) == bank.labels[rows]))
        scores.append(np.mean(vote(x, bank.labels, y) == queries.labels))
    return chosen_by, scores


@pytest.mark.parametrize("tune", [None, TUNED])
def test_the_weight_of_the_metadata_is_chosen_across_places(parts, tune, tiny_shards):
    bank, queries = parts
    if tune is None:
        groups, rows = cells(bank.locations, 1.0), np.ones(150, bool)
    else:
        groups, rows = tune.astype(int), tune
    chosen_by, scores = by_hand(bank, queries, groups, rows)
    expected = scores[int(np.argmax(chosen_by))]
    among_neighbours, _ = by_hand(bank, queries, np.arange(150), rows)
    assert scores[int(np.argmax(among_neighbours))] != expected  # or the test would tell nothing
    row, *_ = score(
        bank,
        queries,
        kinds=["both"],
        dataset=tiny_shards,
        model="m",
        protocols=["knn5"],
        block=0,
        tune=tune,
    )
    assert (row.metric, row.value) == ("accuracy", pytest.approx(expected))


@pytest.mark.parametrize("tune", [None, TUNED])
def test_strengths_are_chosen_on_other_places_than_they_are_fitted_on(
    parts, tune, tiny_shards, monkeypatch
):
    seen = []

    def classify(bank, queries, labels, held_out, num_classes):
        seen.append(held_out)
        return np.zeros(len(queries), np.int32)

    monkeypatch.setitem(PROTOCOLS, "toy", Protocol(classify))
    options = {"kinds": ["image"], "dataset": tiny_shards, "model": "m", "protocols": ["toy"]}
    score(*parts, **options, block=0, tune=tune)
    (held_out,) = seen
    if tune is not None:
        assert held_out.tolist() == tune.tolist()
        return
    places = cells(parts[0].locations, 1.0)
    assert 0.1 < held_out.mean() < 0.4
    assert not set(places[held_out]) & set(places[~held_out])


def test_countries_stay_with_their_examples_if_some_cannot_be_read(tiny_shards_dir, monkeypatch):
    seen = []

    class PartlyBad(evaluate_module.ShardDataset):
        def __getitem__(self, index):
            if self.split == "val" and int(index) in (0, 5):
                raise ShardError(f"record {index}: damaged")
            return super().__getitem__(index)

    monkeypatch.setattr(evaluate_module, "ShardDataset", PartlyBad)
    monkeypatch.setattr(
        evaluate_module, "score", lambda *given, **options: seen.append((given, options)) or []
    )
    evaluate_baseline("colour", tiny_shards_dir, protocols=["knn5"], block=0)
    (((_, queries), options),) = seen
    kept = [i for i in range(24) if i not in (0, 5)]
    assert queries.indices.tolist() == kept
    dataset = evaluate_module.ShardDataset(tiny_shards_dir, "val")
    countries = [dataset[i]["metadata"].values.get("country_code", "") for i in kept]
    assert options["countries"] == countries
    assert len(set(countries)) > 2


def test_joined_features_are_those_of_one_part_after_the_other(parts):
    one, two = parts
    joined = one.join(two)
    for name in ("labels", "locations", "indices"):
        first, second = (getattr(part, name).tolist() for part in parts)
        assert getattr(joined, name).tolist() == first + second
    for kind, values in joined.by_kind.items():
        np.testing.assert_array_equal(values[:150], one.by_kind[kind])
        np.testing.assert_array_equal(values[150:], two.by_kind[kind])


def test_the_score_during_training_is_of_val_by_a_bounded_bank(
    tiny_config, tiny_shards_dir, monkeypatch
):
    config = tiny_config("simclr")
    config.eval.max_bank = 20
    calls = []

    def describe(model, dataset, limit=None):
        """Images that say the class, but for every third one of val: it looks like the next."""
        calls.append((dataset.split, limit))
        labels = np.arange(limit or len(dataset), dtype=np.int32) % 4
        shown = labels.copy()
        if dataset.split == "val":
            shown[::3] = (shown[::3] + 1) % 4
        places = np.full((len(labels), 2), np.nan, np.float32)
        image = np.eye(4, dtype=np.float32)[shown]
        return Features({"image": image}, labels, places, np.arange(len(labels)))

    monkeypatch.setattr(evaluate_module, "extract", describe)
    schema = ShardDataset(tiny_shards_dir, "val").schema
    towers = build_towers(config, schema, build_method(config))
    scores = knn_accuracy(Model(config, schema, towers, {}, evaluation_mesh(config)))
    assert calls == [("train", 20), ("val", None)]
    n = len(ShardDataset(tiny_shards_dir, "val"))
    assert scores == {"knn_image": pytest.approx(1 - len(range(0, n, 3)) / n)}
