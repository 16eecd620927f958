"""The scores of all parts by what the paper calls them: a variant on a data set or on several."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from satmip_jax.report.published import canonical_name
from satmip_jax.studies.claims import Values
from satmip_jax.studies.scoring import LEAK_FREE
from satmip_jax.studies.tracker import StudyTracker

HOME, TRANSFER = "home", "transfer"  # the data set of the training; the mean over all others
METRIC = "macro_f1"
LEAK_FREE_KINDS = {"both": f"both ({LEAK_FREE})", "metadata": f"metadata ({LEAK_FREE})"}


@dataclass(frozen=True)
class Quantity:
    """A score of the paper.

    Attributes:
        variant: name in its study.
        data: HOME, TRANSFER, or the canonical name of a transfer set.
        features: kind of features, see `Score.features`.
        cost: the metric of `satmip study efficiency` instead of a score, such as
            "relative_step_time".
    """

    variant: str
    data: str = HOME
    features: str = "image"
    cost: str = ""

    def __str__(self) -> str:
        kinds = {ours: f"{kind}, leak-free" for kind, ours in LEAK_FREE_KINDS.items()}
        where = {HOME: "", TRANSFER: ", mean of the transfer sets"}.get(self.data, f", {self.data}")
        return f"{self.variant} ({kinds.get(self.features, self.features)}{where})"


class MissingError(Exception):
    """A quantity that was not measured; the message says why."""


@dataclass(frozen=True)
class PaperScores:
    """The rows of all parts.

    Attributes:
        home: name of the data set of the training.
        transfers: names of the transfer sets, in the order given.
        protocol: protocol of the scores, such as "linear".
        rows: lines of the tables of all parts; each also as one of the run that it was taken from.
        reasons: variant -> why it has no scores.
    """

    home: str
    transfers: Sequence[str]
    protocol: str
    rows: Mapping[str, Sequence[Mapping[str, Any]]]
    reasons: Mapping[str, str] = field(default_factory=dict)

    def names(self, data: str) -> list[str]:
        """Return the names of the data sets that HOME, TRANSFER or a canonical name stands for."""
        if data == HOME:
            return [self.home]
        return [name for name in self.transfers if data in (TRANSFER, canonical_name(name))]

    def values(self, quantity: Quantity) -> Values:
        """Return the values of a quantity by seed.

        Raises:
            MissingError: it was not measured.
        """
        if quantity.cost:
            return {row["seed"]: row["value"] for row in self._costs(quantity)}
        names = self.names(quantity.data)
        if not names:
            wanted = "no transfer set" if quantity.data == TRANSFER else f"no {quantity.data}"
            raise MissingError(f"{wanted} was given as --transfer")
        by_data = [self._of(quantity, name) for name in names]
        seeds = [seed for seed in by_data[0] if all(seed in values for values in by_data)]
        return {seed: statistics.fmean(values[seed] for values in by_data) for seed in seeds}

    def _of(self, quantity: Quantity, dataset: str) -> dict[int | None, float]:
        """Return the values on one data set by seed."""
        own = self._rows(quantity.variant)
        found = {
            row["seed"]: row["value"]
            for row in own
            if (row["dataset"], row["features"]) == (dataset, quantity.features)
            and row["metric"] == METRIC
            and _base(row["protocol"]) == self.protocol
        }
        if found:
            return found
        kind = quantity.features
        if kind in LEAK_FREE_KINDS.values():
            raise MissingError(
                f"{quantity.variant} on {dataset} sees no field that reveals the size of the image,"
                " or no other one"
            )
        raise MissingError(f"{quantity.variant} has no score from {kind} on {dataset}")

    def cost(self, quantity: Quantity) -> tuple[float, float, float]:
        """Return a cost with its quartiles over the rounds.

        Raises:
            MissingError: it was not measured.
        """
        (row, *_) = self._costs(quantity)
        value = row["value"]
        low, high = row["low"], row["high"]
        return value, value if low is None else low, value if high is None else high

    def _costs(self, quantity: Quantity) -> list[Mapping[str, Any]]:
        rows = [row for row in self._rows(quantity.variant) if row["metric"] == quantity.cost]
        if not rows:
            raise MissingError(f"{quantity.cost} of {quantity.variant} was not measured")
        return rows

    def _rows(self, variant: str) -> Sequence[Mapping[str, Any]]:
        if rows := self.rows.get(variant):
            return rows
        raise MissingError(self.reasons.get(variant, f"{variant} was not run"))


def _base(protocol: str) -> str:
    """Return the protocol of "linear (tune val)"; blocked scores are protocols of their own."""
    return protocol.partition(" (")[0]


def collect(
    trackers: Sequence[StudyTracker], home: str, transfers: Sequence[str], protocol: str
) -> PaperScores:
    """Collect the scores of trackers.

    Args:
        trackers: of the parts.
        home: name of the data set of the training.
        transfers: names of the others.
        protocol: of the scores that tables and claims are made of.
    """
    rows: dict[str, list[Mapping[str, Any]]] = {}
    reasons: dict[str, str] = {}
    for tracker in trackers:
        reasons |= tracker.plan.skipped
        for run in tracker.runs:
            own = tracker.results.get(run.name, [])
            if run.name in tracker.failed:
                reasons[run.variant.name] = f"{run.name} failed: {tracker.failed[run.name][1]}"
            elif not own:
                reasons.setdefault(run.variant.name, f"{run.name} is not complete")
            rows.setdefault(run.variant.name, []).extend(own)
    return PaperScores(home, transfers, protocol, rows, reasons)
