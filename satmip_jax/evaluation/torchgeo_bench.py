"""The protocols of torchgeo-bench, for scores that stand beside its table.

Features are taken as the encoder gives them: neither standardized nor of unit length. kNN is a
majority of the 5 nearest by Euclidean distance (`knn.knn_classify`). The linear probe is here: the
objective of scikit-learn's `LogisticRegression(C)`, with C chosen on held-out rows and kept for the
fit of all rows.

Source: torchgeo-bench at 0660813, evaluate_knn and evaluate_logistic of src/torchgeo_bench/main.py,
and c_range of conf/config.yaml.

NOTE[DIFF] It minimizes by PyTorch's L-BFGS, at most 2,000 iterations for the choice and 4,000 for
all rows. Here `logistic_solver` minimizes the same objective, and logs what does not converge. It
gives some models (Prithvi 2, CROMA-L, TerraMind-L) a longer grid.
"""

from __future__ import annotations

import logging

import numpy as np
from jaxtyping import Bool, Float, Int, Int32

from satmip_jax.evaluation.knn import FeaturesError
from satmip_jax.evaluation.linear_probe import fit, predict

INVERSE_STRENGTHS = tuple(float(c) for c in np.logspace(-6, 4, 40))

log = logging.getLogger(__name__)


def linear_classify_raw(
    bank: Float[np.ndarray, "n d"],
    queries: Float[np.ndarray, "m d"],
    labels: Int[np.ndarray, " n"],
    held_out: Bool[np.ndarray, " n"],
    num_classes: int,
) -> Int32[np.ndarray, " m"]:
    """Classify as a protocol, see `Protocol.classify`.

    Of the C that classify most held-out rows correctly the smallest is used, as there. A bank of
    one class gives that class.

    Raises:
        FeaturesError: no labelled row is held out, or the others have one class.
    """
    labelled = labels >= 0
    if len(classes := np.unique(labels[labelled])) == 1:
        return np.full(len(queries), classes[0], np.int32)
    rows, chosen_on = labelled & ~held_out, labelled & held_out
    if not chosen_on.any():
        raise FeaturesError("no labelled row is held out: C is chosen on such rows")
    targets = np.where(labelled, labels, 0)

    def strengths(c: np.ndarray, n: int) -> list[float]:
        return [float(x) for x in 1 / (c * n)]

    grid = np.asarray(INVERSE_STRENGTHS)
    probes = fit(
        bank,
        targets,
        num_classes=num_classes,
        strengths=strengths(grid, int(rows.sum())),
        weights=rows,
    )
    correct = np.asarray(predict(probes, bank[chosen_on])) == labels[chosen_on][None]
    best = int(np.argmax(correct.mean(axis=1)))  # of equals the first
    log.info("torchgeo-linear: C %g, %.1f %% held out", grid[best], 100 * correct[best].mean())
    final = fit(
        bank,
        targets,
        num_classes=num_classes,
        strengths=strengths(grid[best : best + 1], int(labelled.sum())),
        weights=labelled,
        start=(probes.coefficients[best], probes.intercepts[best]),
    )
    return np.asarray(predict(final, queries)[0])
