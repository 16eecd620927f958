"""Probabilities sum to 1, and the fit finds the best scale and weight."""

import numpy as np
import pytest
from scipy.special import log_softmax

from satmip_jax.geolocation import posterior
from satmip_jax.geolocation.posterior import Candidates, fit, log_posterior

RNG = np.random.default_rng(0)


def unit(shape):
    rows = RNG.normal(size=shape).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def planted(scale, weight, n=2000):
    """Images whose true candidate is drawn from the posterior of a known scale and weight."""
    vectors = unit((30, 8))
    mass, density = RNG.normal(size=30), RNG.normal(size=30)
    candidates = Candidates(vectors, mass, density)
    images = unit((n, 8))
    p = np.exp(log_posterior(images, candidates, scale, weight))
    true = np.array([RNG.choice(30, p=row / row.sum()) for row in p])
    return images, candidates, true


def loss(images, candidates, true, scale, weight):
    logits = scale * images @ candidates.vectors.T + weight * candidates.density + candidates.mass
    logp = log_softmax(logits.astype(np.float64), axis=1)
    return -(logp[np.arange(len(true)), true] - candidates.mass[true]).mean()


def test_probabilities_sum_to_one_whatever_the_scale():
    images, candidates, _ = planted(5.0, 1.0, n=10)
    for scale in (0.0, 1.0, 1000.0):
        p = np.exp(log_posterior(images, candidates, scale, 1.0))
        np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-9)
        logits = scale * (images @ candidates.vectors.T).astype(float)
        expected = log_softmax(logits + candidates.density + candidates.mass, axis=1)
        np.testing.assert_allclose(np.log(np.maximum(p, 1e-300)), np.maximum(expected, -690.7755))


def test_the_fit_is_the_minimum_of_a_grid_search_and_near_what_was_planted(monkeypatch):
    images, candidates, true = planted(6.0, 1.5)
    monkeypatch.setattr(posterior, "CHUNK", 30 * 300)  # several chunks
    scale, weight, best = fit(images, candidates, true)
    assert scale == pytest.approx(6.0, rel=0.15)
    assert weight == pytest.approx(1.5, rel=0.15)
    assert best == pytest.approx(loss(images, candidates, true, scale, weight), abs=1e-6)
    around = [
        loss(images, candidates, true, s, w)
        for s in np.linspace(scale * 0.5, scale * 1.5, 9)
        for w in np.linspace(weight * 0.5, weight * 1.5, 9)
    ]
    assert best <= min(around) + 1e-6


def test_the_fit_of_the_scale_alone():
    images, candidates, true = planted(6.0, 0.0)
    scale, weight, best = fit(images, candidates, true, weight=0.0)
    assert weight == 0.0
    assert scale == pytest.approx(6.0, rel=0.15)
    scales = np.linspace(1, 12, 111)
    grid = [loss(images, candidates, true, s, 0.0) for s in scales]
    assert scale == pytest.approx(scales[int(np.argmin(grid))], abs=0.1)
    assert best <= min(grid) + 1e-6


def test_images_that_say_nothing_leave_the_prior():
    images, candidates, true = planted(0.0, 1.0)
    scale, weight, _ = fit(images, candidates, true)
    assert scale < 0.7
    assert weight == pytest.approx(1.0, abs=0.1)
