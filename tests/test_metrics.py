"""Metrics against scikit-learn."""

import warnings

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from satmip_jax.evaluation.metrics import accuracy, confusion_matrix, macro_f1, per_class

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
    for metric in (accuracy, macro_f1):
        with pytest.raises(ValueError, match=message):
            metric(truth, predicted)


def test_a_class_too_many():
    with pytest.raises(ValueError, match="class 3 does not exist: there are 3 classes"):
        confusion_matrix([0, 3], [0, 1], 3)
