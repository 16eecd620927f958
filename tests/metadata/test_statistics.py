"""Statistics of the metadata."""

import json
import random

import numpy as np
import pytest

from satmip_jax.metadata import statistics
from satmip_jax.metadata.field_stats import FieldStats
from satmip_jax.metadata.fields import FIELDS
from satmip_jax.metadata.kinds import Timestamp
from satmip_jax.metadata.record import Metadata
from satmip_jax.metadata.statistics import StatsAccumulator
from tests.metadata.records import RECORDS, fit


def test_statistics_equal_those_of_numpy():
    stats = fit(RECORDS).finish()
    assert list(stats) == [f.name for f in FIELDS]
    for f in FIELDS:
        known = [r.values[f.name] for r in RECORDS if f.name in r.values]
        assert stats[f.name].count == len(known) < len(RECORDS)
        if f.kind.has_vocabulary:
            assert stats[f.name].vocabulary == tuple(sorted(set(known)))
            continue
        if not f.kind.n_standardized:
            assert stats[f.name].mean == ()
            continue
        x = np.asarray(
            [[v.year] for v in known] if isinstance(f.kind, Timestamp) else known, np.float64
        )
        x = np.log(x) if getattr(f.kind, "log", False) else x
        np.testing.assert_allclose(stats[f.name].mean, x.mean(0), rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(stats[f.name].std, x.std(0), rtol=1e-9, atol=1e-9)


def test_merged_shards_equal_one_pass_to_the_bit():
    whole = fit(RECORDS)
    shuffled = random.Random(1).sample(RECORDS, len(RECORDS))
    merged = StatsAccumulator()
    for start in (150, 0, 60):  # shards of different sizes, out of order
        stop = {0: 60, 60: 150, 150: 200}[start]
        partial = json.loads(json.dumps(fit(shuffled[start:stop]).to_json()))
        merged.merge(StatsAccumulator.from_json(partial))
    assert merged.finish() == whole.finish()
    assert merged.to_json() == whole.to_json()


@pytest.mark.parametrize(
    "damage",
    [
        lambda d: d.pop("sums"),
        lambda d: d["sums"].update(gsd=[1]),
        lambda d: d["counts"].update(colour=1),
        lambda d: d["counts"].update(gsd="many"),
        lambda d: d["categories"].update(utm_zone={"18M": None}),
        lambda d: d.update(categories=3),
    ],
)
def test_damaged_partial_statistics_are_refused(damage):
    data = fit(RECORDS[:3]).to_json()
    damage(data)
    with pytest.raises(ValueError, match="not partial statistics"):
        StatsAccumulator.from_json(data)


def test_constant_and_absent_fields():
    stats = fit([Metadata.parse({"wavelengths": [661.1, 545, 477]})] * 1000).finish()
    assert stats["wavelengths"].mean == pytest.approx((661.1, 545.0, 477.0))
    assert stats["wavelengths"].std == (1.0, 1.0, 1.0)
    assert stats["gsd"] == FieldStats(count=0, mean=(0.0, 0.0), std=(1.0, 1.0))
    assert stats["timestamp"] == FieldStats(count=0, mean=(0.0,), std=(1.0,))
    assert stats["utm_zone"] == stats["location"] == FieldStats()


def test_rare_categories_are_left_out_and_counted(monkeypatch):
    monkeypatch.setattr(statistics, "MAX_VOCABULARY", 2)
    names = ["c", "b", "b", "a", "d", "d", "d"]
    stats = fit([Metadata.parse({"sensor_platform": n}) for n in names]).finish()
    assert stats["sensor_platform"] == FieldStats(
        count=7, vocabulary=("b", "d"), cut_categories=2, cut_examples=2
    )
