"""Verdicts on claims that one score is higher than another, or near it, over paired seeds.

A claim says in which region a difference lies: above 0 for "higher", above -1 point for "no worse
than 1 point", within 1 point of 0 for "as good as". It is confirmed if the 95 % confidence interval
of the difference lies within that region, refuted if it lies outside, and undecided otherwise. The
interval is that of Student's t over the differences by seed: the seeds of both sides share their
data, the order of samples and the initial encoder.

Intervals are of one comparison each; no correction is made for the number of claims.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from scipy import stats

CONFIDENCE = 0.95

Verdict = Literal["confirmed", "refuted", "undecided", "not measurable"]
Values = Mapping[int | None, float]  # seed -> value; {None: value} for what no seed changes


@dataclass(frozen=True)
class Interval:
    """A mean with its confidence interval.

    Attributes:
        mean: over the seeds.
        low: lower end; None for a single seed.
        high: upper end; None for a single seed.
        seeds: number of seeds.
    """

    mean: float
    low: float | None = None
    high: float | None = None
    seeds: int = 1


@dataclass(frozen=True)
class Region:
    """The open interval that a claim says a difference or a ratio lies in."""

    low: float = -math.inf
    high: float = math.inf

    def judge(self, interval: Interval) -> Verdict:
        """Return the verdict on a claim with this region.

        Example:
            >>> from satmip_jax.studies.claims import Interval, Region
            >>> Region(low=0.0).judge(Interval(1.2, 0.3, 2.1, seeds=3))
            'confirmed'
        """
        if interval.low is None or interval.high is None:
            return "undecided"
        if self.low < interval.low and interval.high < self.high:
            return "confirmed"
        if interval.high < self.low or self.high < interval.low:
            return "refuted"
        return "undecided"

    def slack(self, value: float) -> float:
        """Return the distance of a value to the nearer end; negative outside of the region."""
        return min(value - self.low, self.high - value)


def paired_difference(first: Values, second: Values, scale: float = 1.0) -> Interval | None:
    """Return first minus second over the seeds that both have; None if they share none.

    Args:
        first: value by seed.
        second: value by seed.
        scale: factor of the difference, such as 100 for points.

    Example:
        >>> from satmip_jax.studies.claims import paired_difference
        >>> found = paired_difference({0: 3.0, 1: 5.0}, {0: 1.0, 1: 2.0})
        >>> found.mean, round(found.low, 2), round(found.high, 2)
        (2.5, -3.85, 8.85)
    """
    if set(second) == {None}:
        second = dict.fromkeys(first, second[None])
    if set(first) == {None}:
        first = dict.fromkeys(second, first[None])
    differences = [scale * (first[seed] - second[seed]) for seed in first if seed in second]
    return t_interval(differences) if differences else None


def t_interval(values: Sequence[float]) -> Interval:
    """Return the mean of independent values with Student's confidence interval."""
    mean, n = statistics.fmean(values), len(values)
    if n < 2:
        return Interval(mean)
    quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1))
    half = quantile * statistics.stdev(values) / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, n)


@dataclass(frozen=True)
class Comparison:
    """A measured difference or ratio that a claim depends on.

    Attributes:
        label: what was compared, for people.
        interval: the measurement.
    """

    label: str
    interval: Interval


def judge_all(
    region: Region, comparisons: Sequence[Comparison]
) -> tuple[Verdict, Comparison | None]:
    """Return the verdict on a claim that every comparison lies in a region.

    It is confirmed if all are, and refuted if any is.

    Args:
        region: of every comparison.
        comparisons: none for what cannot be measured.

    Returns:
        The verdict, and the comparison that decides it: the one furthest outside of the region, or
        nearest to its end.
    """
    if not comparisons:
        return "not measurable", None
    refuted = [c for c in comparisons if region.judge(c.interval) == "refuted"]
    decisive = min(refuted or comparisons, key=lambda c: region.slack(c.interval.mean))
    if refuted:
        return "refuted", decisive
    all_confirmed = all(region.judge(c.interval) == "confirmed" for c in comparisons)
    return ("confirmed" if all_confirmed else "undecided"), decisive
