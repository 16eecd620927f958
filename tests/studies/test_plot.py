"""Plots of studies."""

import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pytest

from satmip_jax.studies import plot, table
from tests.studies.toy import BATCHES, row_of


@pytest.mark.parametrize("draw", [plot.points, plot.lines, plot.bars])
def test_plots_of_any_number_of_scores(draw):
    """No scores, one seed and three; names with $ are no formulas; bytes are reproducible."""
    rng = np.random.default_rng(0)
    metric = "relative_step_time" if draw is plot.bars else "accuracy"
    study = replace(BATCHES, draw=draw, metrics=(metric,))
    rows = [
        row_of(
            **{"variant": variant, "method": variant, "seed": seed, "batch": 2**i},
            **{"features": kind, "metric": metric, "protocol": protocol},
            value=float(rng.random()),
        )
        for i, variant in enumerate(["a", "b_$", "c", "d", "e"])
        for seed in range(3 if variant == "a" else 1)
        for kind in ("image", "both")
        for protocol in ("knn5", "linear blocked 1deg")
    ]
    files = [plot.render(study, table.summarize(study, part)) for part in (rows, rows[:], [])]
    assert files[0] == files[1] != files[2]
    for file in files:
        ET.fromstring(file["svg"])
