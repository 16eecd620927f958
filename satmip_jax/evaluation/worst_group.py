"""Accuracy of the worst group of examples: the class, or the region of the world.

A mean hides where a model fails. fMoW-WILDS (Koh et al. 2021) and FINO therefore report the
accuracy of the worst region beside it.

NOTE[DIFF] WILDS takes all regions, however few examples they have; here a group needs
`MIN_EXAMPLES`. Withdrawn country codes such as ROM are read as those of their successors here, and
have no region there. Data with one region alone are grouped by sub-region, or else by country.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Int

from satmip_jax.evaluation.metrics import accuracy, bootstrap
from satmip_jax.evaluation.results import Score
from satmip_jax.metadata.regions import region, sub_region

MIN_EXAMPLES = 20  # of a group; one example then moves its accuracy by 5 points at most

LEVELS: dict[str, Callable[[str], str]] = {
    "region": region,
    "sub_region": sub_region,
    "country": lambda country: country,
}


@dataclass(frozen=True)
class WorstGroup:
    """The group with the lowest accuracy.

    Attributes:
        value: its accuracy.
        n: number of its examples.
        low: lower end of the 95 % interval of its accuracy, as of a group chosen beforehand.
        high: upper end.
        by_group: accuracy of each group that was compared, in the order of their names.
    """

    value: float
    n: int
    low: float
    high: float
    by_group: tuple[tuple[str, float], ...]


def worst_group(
    truth: Int[np.ndarray, " n"],
    predicted: Int[np.ndarray, " n"],
    groups: Sequence[str] | np.ndarray,
) -> WorstGroup | None:
    """Return the group of the lowest accuracy, of equals the first; None unless there are two.

    Args:
        truth: true classes.
        predicted: predicted classes.
        groups: name of the group of each example, "" where unknown: such examples do not count.

    Example:
        >>> from satmip_jax.evaluation.worst_group import worst_group
        >>> truth, predicted = np.zeros(60, int), np.repeat([0, 1], [50, 10])
        >>> worst = worst_group(truth, predicted, ["Asia"] * 30 + ["Africa"] * 30)
        >>> worst.n, worst.by_group
        (30, (('Africa', 0.666...), ('Asia', 1.0)))
    """
    groups = np.asarray(groups)
    names, counts = np.unique(groups[groups != ""], return_counts=True)
    rows = {str(name): groups == name for name in names[counts >= MIN_EXAMPLES]}
    if len(rows) < 2:
        return None
    accuracies = {name: accuracy(truth[own], predicted[own]) for name, own in rows.items()}
    worst = min(accuracies, key=lambda name: accuracies[name])
    own = rows[worst]
    low, high = bootstrap(truth[own], predicted[own], "accuracy")
    return WorstGroup(accuracies[worst], int(own.sum()), low, high, tuple(accuracies.items()))


def score_worst_groups(
    row: Score,
    truth: Int[np.ndarray, " n"],
    predicted: Int[np.ndarray, " n"],
    groupings: Mapping[str, np.ndarray],
) -> list[Score]:
    """Return a score "worst_NAME" of each grouping that has two groups or more.

    Args:
        row: the other entries of the scores.
        truth: true classes.
        predicted: predicted classes.
        groupings: name -> the group of each example, see `worst_group`.
    """
    found = {name: worst_group(truth, predicted, groups) for name, groups in groupings.items()}
    return [
        replace(
            row,
            metric=f"worst_{name}",
            value=worst.value,
            n=worst.n,
            low=worst.low,
            high=worst.high,
            by_class=worst.by_group,
        )
        for name, worst in found.items()
        if worst is not None
    ]


def group_by_region(countries: Sequence[str] | np.ndarray) -> dict[str, np.ndarray]:
    """Group examples by the largest of `LEVELS` at which two groups have `MIN_EXAMPLES`.

    Args:
        countries: ISO 3166 alpha-3 codes, "" where unknown.

    Returns:
        The level and the group of each example, "" where unknown; empty if no level has two.

    Example:
        >>> from satmip_jax.evaluation.worst_group import group_by_region
        >>> list(group_by_region(["FRA"] * 20 + ["ITA"] * 20))
        ['sub_region']
    """
    for level, group_of in LEVELS.items():
        groups = np.array([group_of(str(country)) for country in countries])
        names, counts = np.unique(groups[groups != ""], return_counts=True)
        if len(names[counts >= MIN_EXAMPLES]) > 1:
            return {level: groups}
    return {}
