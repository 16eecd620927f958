"""The protocols of torchgeo-bench against scikit-learn, on raw features."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from satmip_jax.evaluation import torchgeo_bench
from satmip_jax.evaluation.evaluate import evaluate_baseline
from satmip_jax.evaluation.features import Features
from satmip_jax.evaluation.knn import FeaturesError, knn_predict, nearest
from satmip_jax.evaluation.protocols import PROTOCOLS, score
from satmip_jax.evaluation.torchgeo_bench import INVERSE_STRENGTHS
from tests.evaluation.test_knn import blobs

KNN, LINEAR = PROTOCOLS["torchgeo-knn5"].classify, PROTOCOLS["torchgeo-linear"].classify


def raw(n: int, seed: int = 0, classes: int = 4, d: int = 6):
    """Overlapping classes in features of different scales, far from the origin."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(classes, d))
    labels = rng.integers(classes, size=n)
    scale = np.array([0.05, 0.2, 1.0, 1.0, 3.0, 8.0])
    features = (centres[labels] + rng.normal(size=(n, d))) * scale + 20
    return features.astype(np.float32), labels.astype(np.int32)


@pytest.mark.parametrize("data", [blobs, raw])
def test_knn_is_scikit_learns(data):
    (bank, labels), (queries, _) = data(900), data(400, seed=1)
    ours = KNN(bank, queries, labels.astype(np.int32), np.zeros(900, bool), 6)
    theirs = KNeighborsClassifier(5).fit(bank.astype(np.float64), labels)
    np.testing.assert_array_equal(ours, theirs.predict(queries.astype(np.float64)))
    cosine = knn_predict(bank, labels, queries, num_classes=6)
    assert (np.asarray(cosine) != ours).mean() > 0.02  # the metric matters on these


def test_equal_votes_go_to_the_smallest_class_as_in_scikit_learn():
    bank = np.array([[1.0], [2.0], [3.0], [4.0], [40.0]], np.float32)
    labels = np.array([3, 1, 1, 3, 0])
    queries = np.array([[0.0], [10.0], [39.0]], np.float32)
    theirs = KNeighborsClassifier(5).fit(bank, labels).predict(queries)
    ours = knn_predict(bank, labels, queries, num_classes=4, metric="euclidean")
    assert np.asarray(ours).tolist() == theirs.tolist() == [1, 1, 1]


@pytest.mark.parametrize("scale", [1e-25, 1.0, 1e25])
def test_distances_survive_any_scale(scale):
    (bank, _), (queries, _) = raw(300), raw(50, seed=1)
    _, index = nearest(bank * scale, queries * scale, 1, metric="euclidean", bank_chunk=64)
    exact = np.square(queries[:, None].astype(np.float64) - bank[None]).sum(axis=2)
    np.testing.assert_array_equal(np.asarray(index)[:, 0], exact.argmin(axis=1))


def test_weights_by_distance_are_refused():
    bank, labels = raw(20)
    with pytest.raises(FeaturesError, match="needs the cosine"):
        knn_predict(bank, labels, bank, num_classes=4, vote="weighted", metric="euclidean")


def by_hand(bank, labels, held_out, queries):
    """Choose C of the grid on the held-out rows by scikit-learn, and refit on all rows."""

    def solve(c, rows):
        probe = LogisticRegression(C=c, solver="newton-cholesky", tol=1e-8)
        return probe.fit(bank[rows], labels[rows])

    scores = [
        solve(c, ~held_out).score(bank[held_out], labels[held_out]) for c in np.logspace(-6, 4, 40)
    ]
    best = np.logspace(-6, 4, 40)[int(np.argmax(scores))]
    return solve(best, np.ones(len(bank), bool)).predict(queries), best, scores


@pytest.mark.slow
def test_the_linear_probe_is_scikit_learns():
    (bank, labels), (queries, _) = raw(500), raw(300, seed=1)
    held_out = np.arange(500) >= 380
    ours = LINEAR(bank, queries, labels, held_out, 4)
    theirs, best, scores = by_hand(bank.astype(np.float64), labels, held_out, queries)
    assert 1e-6 < best < 1e4  # a choice inside the grid
    assert max(scores) - min(scores) > 0.1
    assert (ours == theirs).mean() > 0.99


def test_c_is_chosen_on_held_out_rows_and_kept_for_the_fit_of_all(monkeypatch):
    """A grid of four, and what a slip in each step would give instead."""
    grid = np.array([1e-5, 1e-3, 1e-1, 1e3])
    monkeypatch.setattr(torchgeo_bench, "INVERSE_STRENGTHS", tuple(grid.tolist()))
    (bank, labels), (queries, _) = raw(72, seed=22), raw(500, seed=1)
    held_out = np.arange(72) >= 36
    everything = np.ones(72, bool)

    def solve(c, rows):
        probe = LogisticRegression(C=c, solver="newton-cholesky", tol=1e-8)
        return probe.fit(bank[rows].astype(np.float64), labels[rows])

    def share(rows, by):
        return [solve(c, rows).score(bank[by].astype(np.float64), labels[by]) for c in grid]

    def answer(c, rows):
        return solve(c, rows).predict(queries.astype(np.float64))

    chosen_by = share(~held_out, held_out)
    best = grid[int(np.argmax(chosen_by))]
    assert chosen_by.count(max(chosen_by)) == 2
    ours = LINEAR(bank, queries, labels, held_out, 4)
    assert (ours == answer(best, everything)).mean() > 0.995
    for slip in (
        answer(best, ~held_out),  # fitted without the held-out rows
        answer(grid[int(np.argmax(share(everything, held_out)))], everything),
        answer(grid[int(np.argmax(share(~held_out, everything)))], everything),
        answer(best / 2, everything),  # the strength of half of the rows
        answer(grid[3 - int(np.argmax(chosen_by[::-1]))], everything),  # the last of equals
    ):
        assert (ours == slip).mean() < 0.99


def test_the_grid_is_that_of_the_benchmark():
    assert len(INVERSE_STRENGTHS) == 40
    # imagestats on eurosat-spatial in its table: best_c 0.0003665241237079
    assert min(abs(c - 0.0003665241237079) for c in INVERSE_STRENGTHS) < 1e-12


def test_features_stay_raw_and_the_tuning_split_never_votes(tiny_shards):
    classes = len(tiny_shards.schema.classes)
    (features, labels), (asked, truth) = raw(70, classes=classes), raw(50, seed=1, classes=classes)

    def part(rows, numbers):
        places = np.full((len(rows), 2), np.nan, np.float32)
        return Features({"image": rows}, numbers, places, np.arange(len(rows)))

    tune = np.arange(70) >= 30
    features[tune], labels[tune] = asked[:40], (truth[:40] + 1) % classes  # near, and wrong
    (row, _) = score(
        part(features, labels),
        part(asked, truth),
        kinds=["image"],
        dataset=tiny_shards,
        model="raw",
        protocols=["torchgeo-knn5"],
        tune=tune,
    )
    theirs = KNeighborsClassifier(5).fit(features[~tune].astype(np.float64), labels[~tune])
    assert row.value == theirs.score(asked.astype(np.float64), truth)
    assert row.value > KNeighborsClassifier(5).fit(features, labels).score(asked, truth)


def test_they_are_scored_on_request_alone(tiny_shards_dir):
    rows = evaluate_baseline("colour", tiny_shards_dir, block=0)
    assert not any(row.protocol.startswith("torchgeo") for row in rows)
    rows = evaluate_baseline("colour", tiny_shards_dir, protocols=["torchgeo-linear"], block=0)
    assert {row.protocol for row in rows} == {"torchgeo-linear"}
