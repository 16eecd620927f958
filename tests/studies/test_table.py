"""The table of a study: means and deviations over the seeds."""

from dataclasses import replace

import numpy as np
import pytest

from satmip_jax.studies import plot, table
from tests.studies.toy import BATCHES, row_of

POINTS = replace(BATCHES, draw=plot.points, columns={})


def test_mean_and_deviation_are_those_of_numpy(quiet):
    rng = np.random.default_rng(0)
    values = {("a", "knn5"): rng.random(5), ("b", "knn5"): rng.random(1), ("a", "linear"): [0.25]}
    rows = [
        row_of(variant=v, protocol=p, seed=seed, value=float(x), train_seconds=float(seed))
        for (v, p), xs in values.items()
        for seed, x in enumerate(xs)
    ]
    summaries = table.summarize(POINTS, rng.permutation(rows).tolist())
    assert len(summaries) == 3
    for s in summaries:
        xs = np.asarray(values[s.cells["variant"], s.cells["protocol"]])
        assert s.mean == pytest.approx(np.mean(xs))
        assert len(s.values) == len(xs)
        assert s.train_seconds == pytest.approx(np.mean(range(len(xs))))
        if len(xs) > 1:
            assert s.std == pytest.approx(np.std(xs, ddof=1))
        else:
            assert s.std is None
    table.print_summary(POINTS, summaries, quiet)
    xs = 100 * values["a", "knn5"]
    printed = quiet.export_text()
    assert f"{xs.mean():.1f} ± {xs.std(ddof=1):.1f}" in printed
    assert f"{100 * values['b', 'knn5'][0]:.1f} " in printed
