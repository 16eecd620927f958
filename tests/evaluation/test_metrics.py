"""Metrics against scikit-learn, intervals against resampling one by one."""

import warnings

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from satmip_jax.evaluation import metrics
from satmip_jax.evaluation.metrics import (
    accuracy,
    bootstrap,
    challenge_f1,
    confusion_matrix,
    macro_f1,
    per_class,
)
from satmip_jax.sources.fmow import CHALLENGE_WEIGHTS, CLASSES

pairs = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=30)


@given(pairs)
@settings(max_examples=60, deadline=None)
def test_scores_are_scikit_learns(answers):
    truth, predicted = np.array(answers).T
    classes = [f"class {i}" for i in range(7)]  # some never occur
    matrix = sklearn.metrics.confusion_matrix(truth, predicted, labels=range(7))
    np.testing.assert_array_equal(confusion_matrix(truth, predicted, 7), matrix)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # undefined scores are 0, of which scikit-learn warns
        expected = sklearn.metrics.f1_score(truth, predicted, average="macro")
        table = sklearn.metrics.precision_recall_fscore_support(truth, predicted, labels=range(7))
    assert accuracy(truth, predicted) == sklearn.metrics.accuracy_score(truth, predicted)
    assert macro_f1(truth, predicted) == pytest.approx(expected, abs=1e-12)
    ours = per_class(truth, predicted, classes)
    for key, column in zip(("precision", "recall", "f1", "n"), table, strict=True):
        np.testing.assert_allclose([row[key] for row in ours], column, atol=1e-12)
    assert [row["name"] for row in ours] == classes
    assert [row["predicted"] for row in ours] == matrix.sum(axis=0).tolist()


def test_only_classes_that_occur_count():
    assert macro_f1([7, 7, 9, 9], [7, 7, 7, 9]) == pytest.approx((0.8 + 2 / 3) / 2)


@pytest.mark.usefixtures("no_type_checks")
@pytest.mark.parametrize(
    ("truth", "predicted", "message"),
    [
        ([0, 1], [0], "shape"),
        ([], [], "above 0"),
        ([[0]], [[0]], "shape"),
        ([0, -1], [0, 1], "truth is int64 from -1"),
        ([0, 1], [0.0, 1.0], "predicted is float64"),
    ],
)
def test_errors(truth, predicted, message):
    by_class = [1.0] * 2
    for metric in (
        accuracy,
        macro_f1,
        lambda *pairs: challenge_f1(*pairs, by_class),
        lambda *pairs: bootstrap(*pairs, "accuracy"),
    ):
        with pytest.raises(ValueError, match=message):
            metric(truth, predicted)


def test_a_class_too_many():
    with pytest.raises(ValueError, match="class 3 does not exist: there are 3 classes"):
        confusion_matrix([0, 3], [0, 1], 3)


@given(pairs, st.lists(st.sampled_from([0.0, 0.6, 1.0, 1.4]), min_size=6, max_size=6))
@settings(max_examples=60, deadline=None)
def test_challenge_f1_weighs_scikit_learns_f1(answers, weights):
    truth, predicted = np.array(answers).T
    occur = np.union1d(truth, predicted)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        f1 = sklearn.metrics.f1_score(truth, predicted, average=None, labels=occur)
    weight = np.array(weights)[occur]
    expected = np.average(f1, weights=weight) if weight.any() else 0
    assert challenge_f1(truth, predicted, weights) == pytest.approx(expected, abs=1e-12)
    assert challenge_f1(truth, predicted, [0.7] * 6) == pytest.approx(macro_f1(truth, predicted))


def test_the_challenge_weighs_all_of_its_classes():
    assert set(CHALLENGE_WEIGHTS) == {*CLASSES, "false_detection"}
    assert sorted(CHALLENGE_WEIGHTS.values()) == [0.0, *[0.6] * 10, *[1.0] * 42, *[1.4] * 10]
    names = ["airport", "airport_hangar", "tower", "false_detection"]
    weights = [CHALLENGE_WEIGHTS[name] for name in names]
    # F1 of 2/3, 2/3, 1 and 0; an example of no class only matters by what it is taken for
    score = challenge_f1([0, 1, 1, 2, 3], [0, 1, 0, 2, 3], weights)
    assert score == pytest.approx((0.6 * 2 / 3 + 2 / 3 + 1.4) / 3)
    assert challenge_f1([0, 1, 1, 2, 3], [0, 1, 0, 2, 1], weights) < score


@pytest.mark.usefixtures("no_type_checks")
@pytest.mark.parametrize(
    ("weights", "message"),
    [([1.0, 1.0], "class 2 has no weight"), ([1.0, -1.0, 1.0], "0 or more"), ([np.nan] * 3, "nan")],
)
def test_challenge_weights_that_cannot_be(weights, message):
    with pytest.raises(ValueError, match=message):
        challenge_f1([0, 2], [0, 1], weights)


def answers(n: int, seed: int = 0):
    """Four classes of very different size, numbered with gaps, and two in three answers right."""
    rng = np.random.default_rng(seed)
    classes = np.array([0, 3, 4, 9])
    truth = rng.choice(classes, size=n, p=[0.6, 0.25, 0.12, 0.03])
    return truth, np.where(rng.random(n) < 2 / 3, truth, rng.choice(classes, size=n))


@pytest.mark.parametrize("name", ["accuracy", "macro_f1"])
@pytest.mark.parametrize("confidence", [0.95, 0.5])
def test_bootstrap_is_resampling_of_examples(name, confidence):
    truth, predicted = answers(80)
    metric, rng = getattr(metrics, name), np.random.default_rng(7)
    drawn = [rng.integers(80, size=80) for _ in range(2000)]
    scores = [metric(truth[rows], predicted[rows]) for rows in drawn]
    ends = [(1 - confidence) / 2, (1 + confidence) / 2]
    interval = bootstrap(truth, predicted, name, samples=4000, confidence=confidence)
    np.testing.assert_allclose(interval, np.quantile(scores, ends), atol=0.013)
    assert interval[0] < metric(truth, predicted) < interval[1]


@pytest.mark.parametrize("name", ["accuracy", "macro_f1", "challenge_f1"])
def test_bootstrap_scores_each_sample_like_the_metric(name, monkeypatch):
    """Exactly: the samples are redrawn here and written out example by example."""
    truth, predicted = answers(40, seed=1)
    pairs, counts = np.unique([truth, predicted], axis=1, return_counts=True)
    samples = np.random.default_rng(5).multinomial(40, counts / 40, size=200)
    metric, options = getattr(metrics, name), {}
    if name == "challenge_f1":
        options = {"weights": [1.4, 0, 0, 0.6, 0, 0, 0, 0, 0, 1.0]}  # class 4 does not count
    scores = [metric(*np.repeat(pairs, sample, axis=1), **options) for sample in samples]
    expected = np.quantile(scores, [0.025, 0.975])
    options |= {"samples": 200, "seed": 5}
    np.testing.assert_allclose(bootstrap(truth, predicted, name, **options), expected, atol=1e-12)
    monkeypatch.setattr(metrics, "DRAWN", 3 * len(counts))  # three samples at a time
    np.testing.assert_allclose(bootstrap(truth, predicted, name, **options), expected, atol=1e-12)


def test_bootstrap_of_certain_and_of_single_answers():
    assert bootstrap([1, 2, 2], [1, 2, 2], "macro_f1") == (1.0, 1.0)
    assert bootstrap([3], [0], "macro_f1") == (0.0, 0.0)
    truth, predicted = answers(500)
    assert bootstrap(truth, predicted, "accuracy", seed=1) == bootstrap(
        truth, predicted, "accuracy", seed=1
    )
    few = bootstrap(truth[:50], predicted[:50], "accuracy")
    many = bootstrap(truth, predicted, "accuracy")
    assert many[1] - many[0] < 0.5 * (few[1] - few[0])


@pytest.mark.usefixtures("no_type_checks")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": "loss"}, "metric is 'loss'"),
        ({"samples": 0}, "0 samples"),
        ({"confidence": 95}, "confidence of 95"),
        ({"metric": "challenge_f1"}, "class 1 has no weight"),
    ],
)
def test_bootstrap_options_that_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        bootstrap(**({"truth": [0, 1], "predicted": [0, 1], "metric": "accuracy"} | options))
