"""The weight of the metadata, chosen on the bank, against kNN of the fused features."""

import numpy as np
import pytest

from satmip_jax.evaluation import fusion
from satmip_jax.evaluation.fusion import WEIGHTS, choose_weight, fuse
from satmip_jax.evaluation.knn import knn_predict


@pytest.mark.parametrize("informative", [0.0, 0.3, 2.0])
@pytest.mark.parametrize("held", [fusion.SIMILARITIES, 700])
def test_the_weight_with_which_knn_is_best(informative, held, monkeypatch):
    monkeypatch.setattr(fusion, "SIMILARITIES", held)
    rng = np.random.default_rng(0)
    labels = rng.integers(4, size=300).astype(np.int32)
    image = (rng.normal(size=(300, 6)) + 0.8 * np.eye(4, 6)[labels]).astype(np.float32)
    metadata = rng.normal(size=(300, 3)) + informative * np.eye(4, 3)[labels]
    metadata = metadata.astype(np.float32)
    groups, labels[::7] = rng.integers(20, size=300), -1
    queries = rng.random(300) < 0.8
    rows = np.flatnonzero(queries & (labels >= 0))
    accuracies = []
    for weight in WEIGHTS:
        fused = fuse(image, metadata, weight)
        predicted = knn_predict(
            *(fused, labels, fused[rows]), num_classes=4, groups=(groups, groups[rows])
        )
        accuracies.append(np.mean(np.asarray(predicted) == labels[rows]))
    chosen = choose_weight(image, metadata, labels, groups, queries, num_classes=4)
    assert chosen == WEIGHTS[int(np.argmax(accuracies))]
