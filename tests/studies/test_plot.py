"""Plots of studies."""

import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pytest

from satmip_jax.studies import plot, table
from satmip_jax.studies.batch_size import STUDY as BATCH_SIZE
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


def test_cost_is_shown_once_beside_all_scores():
    sizes = {64: 0.25, 128: 0.5, 256: 1.0}
    rows = [
        row_of(
            **{"variant": f"batch-{size}", "protocol": protocol, "dataset": dataset},
            **{"batch_size": size, "exchange": "gather", "compiled_gib": gib},
            **{"images": 1000, "train_seconds": 10 * gib},
        )
        for size, gib in sizes.items()
        for dataset in ("a", "b")
        for protocol in ("knn5", "linear", "knn5 blocked 1deg", "linear blocked 1deg")
    ]
    figure = plot.scaling(BATCH_SIZE, table.summarize(BATCH_SIZE, rows))
    panels = {panel.get_title(): panel for panel in figure.axes if panel.get_visible()}
    assert len(panels) == sum(panel.get_visible() for panel in figure.axes) == 8 + 2
    for title, values in {
        "images / s": [400, 200, 100],
        "memory per device, GiB": [0.25, 0.5, 1.0],
    }.items():
        points = [line.get_xydata()[0].tolist() for line in panels[title].get_lines()]
        assert points == [[size, value] for size, value in zip(sizes, values, strict=True)]
        assert panels[title].get_ylim()[1] > max(values)
    knn = [row for row in rows if row["protocol"] == "knn5" and row["dataset"] == "a"]
    figure = plot.scaling(BATCH_SIZE, table.summarize(BATCH_SIZE, knn))
    assert [panel.get_title() for panel in figure.axes if panel.get_visible()] == [
        *("a: knn5", "images / s", "memory per device, GiB")
    ]
