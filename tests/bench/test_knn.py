"""Benchmark of kNN classification."""

import numpy as np

from satmip_jax.bench import knn


def test_classifiers_agree():
    bank, labels, queries = knn.features(500, 60, 24)
    predictions = {
        name: np.asarray(f()) for name, f in knn.classifiers(bank, labels, queries).items()
    }
    assert predictions.keys() == {"satmip", "numpy", "scikit-learn"}
    for predicted in predictions.values():
        np.testing.assert_array_equal(predicted, predictions["numpy"])
    assert len(np.unique(predictions["numpy"])) > knn.CLASSES / 2
