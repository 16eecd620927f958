"""Classification in detail."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import accuracy_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from satmip_jax.evaluation.protocols import score
from satmip_jax.report.classes import class_report


def test_report_agrees_with_scikit_learn(encoded):
    bank, queries = encoded.bank.features, encoded.queries.features
    assert (len(bank.labels), len(queries.labels)) == (50, 17)
    scaler = StandardScaler().fit(bank.by_kind["image"].astype(np.float64))
    x, y = (scaler.transform(part.by_kind["image"]) for part in (bank, queries))
    knn = KNeighborsClassifier(5, metric="cosine", algorithm="brute").fit(x, bank.labels)
    predicted = knn.predict(y)
    assert (predicted == encoded.predicted).mean() > 0.9  # except for ties in float32
    report = class_report(encoded)
    assert report.accuracy == pytest.approx(accuracy_score(queries.labels, encoded.predicted))
    options = {"kinds": ["image"], "protocols": ["knn5"], "block": 0, "model": ""}
    rows = score(bank, queries, dataset=encoded.queries.dataset, **options)
    # the same as `satmip evaluate` gives for these examples
    assert report.accuracy == next(row.value for row in rows if row.metric == "accuracy")
    assert np.sum(report.matrix) == 17
    assert np.trace(report.matrix) == round(17 * report.accuracy)
    assert report.majority == next(row.majority for row in rows if row.metric == "accuracy")
    rare = np.bincount(
        queries.labels, minlength=len(encoded.queries.dataset.schema.classes)
    ).argmin()
    others = replace(bank, labels=np.full_like(bank.labels, rare))
    other = replace(encoded, bank=replace(encoded.bank, features=others))
    assert class_report(other).majority == pytest.approx((queries.labels == rare).mean())
