"""Accumulation of the metadata statistics of a train split."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from satmip_jax.metadata.field_stats import FieldStats
from satmip_jax.metadata.fields import FIELDS, Field
from satmip_jax.metadata.record import Metadata

MAX_VOCABULARY = 4096  # categories that a field keeps, the most frequent ones


class StatsAccumulator:
    """Sums from which the statistics of a train split follow; partial sums merge exactly.

    Numbers are added as integer multiples of 2**-40 in Python's unbounded integers. Unlike sums of
    floats these do not depend on the order, so a restarted or parallel run gives the same bits.

    Attributes:
        counts: Field -> number of examples that have it.
        sums: Field -> sum of each of its standardized numbers, in units of 2**-40.
        squares: Field -> sum of their squares, in units of 2**-80.
        categories: Field with a vocabulary -> category -> number of examples.

    Example:
        >>> from satmip_jax.metadata.record import Metadata
        >>> from satmip_jax.metadata.statistics import StatsAccumulator
        >>> stats = StatsAccumulator()
        >>> stats.add(Metadata.parse({"cloud_cover": 10}))
        >>> stats.finish()["cloud_cover"].mean
        (10.0,)
    """

    _BITS = 40

    def __init__(self) -> None:
        """Start without examples."""
        self.counts = dict.fromkeys((f.name for f in FIELDS), 0)
        self.sums = {f.name: [0] * n for f in FIELDS if (n := f.kind.n_standardized)}
        self.squares = {name: [0] * len(sums) for name, sums in self.sums.items()}
        self.categories: dict[str, Counter[str]] = {
            f.name: Counter() for f in FIELDS if f.kind.has_vocabulary
        }

    def add(self, metadata: Metadata) -> None:
        """Count one example, as it is stored: after the crop and resize."""
        for f in FIELDS:
            value = metadata.values.get(f.name)
            if value is None:
                continue
            self.counts[f.name] += 1
            if f.kind.has_vocabulary:
                self.categories[f.name][str(value)] += 1
                continue
            for i, x in enumerate(f.kind.standardized(value)):
                n = round(math.ldexp(x, self._BITS))
                self.sums[f.name][i] += n
                self.squares[f.name][i] += n * n

    def merge(self, other: StatsAccumulator) -> None:
        """Add the examples of another; the order of merging does not matter."""
        for name, n in other.counts.items():
            self.counts[name] += n
        for mine, others in ((self.sums, other.sums), (self.squares, other.squares)):
            for name, sums in others.items():
                mine[name] = [a + b for a, b in zip(mine[name], sums, strict=True)]
        for name, counter in other.categories.items():
            self.categories[name].update(counter)

    def to_json(self) -> dict[str, Any]:
        """Return the partial sums as plain (long) integers and strings."""
        return {
            "counts": dict(self.counts),
            "sums": {name: list(sums) for name, sums in self.sums.items()},
            "squares": {name: list(sums) for name, sums in self.squares.items()},
            "categories": {name: dict(counter) for name, counter in self.categories.items()},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> StatsAccumulator:
        """Invert `to_json`; a field that the data do not list counts as never present.

        Raises:
            ValueError: The data are not partial sums of fields in `FIELDS`.
        """
        new, partial = cls(), cls()
        try:
            partial.counts = {name: int(n) for name, n in data["counts"].items()}
            partial.sums = {name: list(map(int, sums)) for name, sums in data["sums"].items()}
            partial.squares = {name: list(map(int, sums)) for name, sums in data["squares"].items()}
            partial.categories = {
                name: Counter({str(text): int(n) for text, n in counter.items()})
                for name, counter in data["categories"].items()
            }
            new.merge(partial)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"not partial statistics of these fields: {error!r}") from error
        return new

    def finish(self) -> dict[str, FieldStats]:
        """Return the statistics of every field, in the order of `FIELDS`."""
        return {f.name: self._finish(f) for f in FIELDS}

    def _finish(self, f: Field) -> FieldStats:
        count = self.counts[f.name]
        if not count:
            return FieldStats.never_present(f.kind.n_standardized)
        if f.kind.has_vocabulary:
            # the most frequent first; among equally frequent ones, in alphabetical order
            ranked = sorted(self.categories[f.name].items(), key=lambda item: (-item[1], item[0]))
            kept, cut = ranked[:MAX_VOCABULARY], ranked[MAX_VOCABULARY:]
            return FieldStats(
                count=count,
                vocabulary=tuple(sorted(name for name, _ in kept)),
                cut_categories=len(cut),
                cut_examples=sum(n for _, n in cut),
            )
        means, stds = [], []
        for total, squares in zip(
            self.sums.get(f.name, []), self.squares.get(f.name, []), strict=True
        ):
            mean = total / (count << self._BITS)
            variance = (count * squares - total * total) / (count * count << 2 * self._BITS)
            std = math.sqrt(variance)
            means.append(mean)
            # a deviation that float32 hardly tells from 0 would only magnify rounding errors
            stds.append(std if std > 1e-6 * max(1.0, abs(mean)) else 1.0)
        return FieldStats(count=count, mean=tuple(means), std=tuple(stds))
