"""Verdicts on claims: Student's t interval of scipy, and the sign of what is claimed."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from satmip_jax.studies.claims import (
    Comparison,
    Interval,
    Region,
    judge_all,
    paired_difference,
    t_interval,
)

HIGHER = Region(low=0.0)
scores = st.lists(st.floats(0.0, 1.0), min_size=2, max_size=8)


@settings(deadline=None)
@given(pairs=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=8))
def test_interval_of_a_paired_difference_is_that_of_scipy(pairs):
    a, b = np.array(pairs).T
    interval = paired_difference(dict(enumerate(a)), dict(enumerate(b)), scale=100.0)
    differences = 100 * (a - b)
    assert (interval.mean, interval.seeds) == (pytest.approx(differences.mean()), len(a))
    if differences.std() > 1e-9:
        test = stats.ttest_rel(100 * a, 100 * b).confidence_interval(0.95)
        assert (interval.low, interval.high) == pytest.approx(tuple(test), abs=1e-6)


@settings(deadline=None)
@given(values=scores)
def test_a_claim_and_its_opposite_are_never_both_confirmed(values):
    interval = t_interval([v - 0.5 for v in values])
    opposite = t_interval([0.5 - v for v in values])
    verdicts = HIGHER.judge(interval), HIGHER.judge(opposite)
    assert verdicts in {
        ("confirmed", "refuted"),
        ("refuted", "confirmed"),
        ("undecided", "undecided"),
    }
    significant = interval.low > 0 or interval.high < 0
    assert (verdicts[0] != "undecided") == significant
    if verdicts[0] == "confirmed":
        assert interval.mean > 0


@pytest.mark.parametrize(
    ("region", "interval", "verdict"),
    [
        (HIGHER, (0.1, 2.0), "confirmed"),
        (HIGHER, (-0.1, 2.0), "undecided"),
        (HIGHER, (-2.0, -0.1), "refuted"),
        (HIGHER, (0.0, 0.0), "undecided"),  # equal on every seed
        (HIGHER, (None, None), "undecided"),  # one seed
        (Region(low=-1.0), (-0.9, 0.5), "confirmed"),  # no worse than one point
        (Region(low=-1.0), (-1.1, 0.5), "undecided"),
        (Region(-1.0, 1.0), (-0.9, 0.9), "confirmed"),  # as good as
        (Region(-1.0, 1.0), (0.5, 1.5), "undecided"),
        (Region(-1.0, 1.0), (1.1, 1.5), "refuted"),
        (Region(0.41, 0.71), (0.5, 0.5), "confirmed"),  # a ratio that is certain
        (Region(0.41, 0.71), (0.8, 0.8), "refuted"),
    ],
)
def test_verdicts(region, interval, verdict):
    assert region.judge(Interval(0.0, *interval)) == verdict


def test_seeds_are_paired_and_what_no_seed_changes_is_used_for_all():
    found = paired_difference({0: 0.5, 1: 0.7, 2: 0.9}, {2: 0.8, 0: 0.4})
    assert (found.seeds, found.mean) == (2, pytest.approx(0.1))
    assert found.low == pytest.approx(0.1)  # both seeds differ by the same
    found = paired_difference({0: 0.5, 1: 0.7}, {None: 0.4})
    assert (found.seeds, found.mean) == (2, pytest.approx(0.2))
    assert paired_difference({None: 0.4}, {0: 0.5, 1: 0.7}).mean == pytest.approx(-0.2)
    assert paired_difference({0: 0.5}, {1: 0.5}) is None
    single = paired_difference({0: 0.9}, {0: 0.1})
    assert HIGHER.judge(single) == "undecided"


def test_a_claim_about_several_needs_all_of_them():
    def comparison(name, mean, half):
        return Comparison(name, Interval(mean, mean - half, mean + half, 3))

    clear, open_, wrong = (
        comparison("clear", 5.0, 1.0),
        comparison("open", 0.5, 1.0),
        comparison("wrong", -3.0, 1.0),
    )
    for comparisons, verdict, decisive in (
        ([clear], "confirmed", clear),
        ([clear, open_], "undecided", open_),
        ([wrong, clear, open_], "refuted", wrong),
        ([], "not measurable", None),
    ):
        assert judge_all(HIGHER, comparisons) == (verdict, decisive)
    lower_but_open = comparison("lower", -4.0, 9.0)
    assert judge_all(HIGHER, [lower_but_open, wrong]) == ("refuted", wrong)
    assert math.isinf(HIGHER.high)
