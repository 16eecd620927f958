"""Calibration error, distances and baselines against naive forms."""

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.neighbors import NearestNeighbors

from satmip_jax.geography.grid import great_circle, unit
from satmip_jax.geolocation.scores import (
    best_k,
    degrees,
    distance_scores,
    geometric_median,
    knn_places,
    median_place,
    reliability,
)

RNG = np.random.default_rng(1)


def test_the_calibration_error_is_the_naive_one():
    stated = RNG.uniform(size=500)
    correct = RNG.uniform(size=500) < stated**2
    error, points = reliability(stated, correct, bins=10)
    expected = 0.0
    for low in np.arange(10) / 10:
        rows = (stated > low) & (stated <= low + 0.1)
        expected += rows.mean() * abs(stated[rows].mean() - correct[rows].mean())
    assert error == pytest.approx(expected)
    frequency, mean = calibration_curve(correct, stated, n_bins=10)
    np.testing.assert_allclose([p[0] for p in points], mean)
    np.testing.assert_allclose([p[1] for p in points], frequency)
    assert sum(p[2] for p in points) == 500


def test_a_calibrated_statement_has_a_small_error():
    stated = RNG.uniform(size=20_000)
    assert reliability(stated, RNG.uniform(size=20_000) < stated)[0] < 0.02
    assert reliability(np.array([0.0, 1.0]), np.array([False, True])) == (
        0.0,
        [(0.0, 0.0, 1), (1.0, 1.0, 1)],
    )


def test_distances_are_counted_within_each_radius():
    assert distance_scores(np.array([100.0, 200.0, 700.0, 3000.0])) == {
        "median km": 450.0,
        "within 200 km": 0.5,
        "within 750 km": 0.75,
        "within 2500 km": 0.75,
    }


def test_the_geometric_median_is_the_place_of_the_least_summed_distance():
    places = np.stack([RNG.uniform(170, 190, 9), RNG.uniform(-10, 10, 9)], 1)  # around 180
    found = degrees(geometric_median(unit(places)[None]))[0]
    least = great_circle(found, places).sum()
    tried = found + RNG.normal(scale=0.5, size=(500, 2))
    assert least <= min(great_circle(place, places).sum() for place in tried) + 0.5
    assert abs(abs(found[0]) - 180) < 10
    np.testing.assert_allclose(median_place(places), found, atol=1e-6)


def test_one_neighbour_is_that_of_scikit_learn():
    scales = np.array([0.1, 1.0, 10.0, 50.0])  # features as encoders have them, around a mean
    bank, queries = (RNG.normal(size=(n, 4)) * scales + 30 for n in (60, 20))
    places = np.stack([RNG.uniform(-180, 180, 60), RNG.uniform(-80, 80, 60)], 1)
    found = knn_places(bank, places, queries, ks=(1, 3, 100))
    assert list(found) == [1, 3]
    z = (bank - bank.mean(0)) / bank.std(0)
    oracle = NearestNeighbors(n_neighbors=1, metric="cosine").fit(z)
    asked = (queries - bank.mean(0)) / bank.std(0)
    nearest = oracle.kneighbors(asked, return_distance=False)[:, 0]
    assert great_circle(found[1], places[nearest]).max() < 1e-3
    true = places[nearest]
    assert best_k(found, true, np.arange(20)) == 1
