"""Statistics of the metadata of a train split; partial sums of shards merge exactly."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from satmip_jax.metadata.fields import FIELDS, Field
from satmip_jax.metadata.record import Metadata

MAX_VOCABULARY = 4096  # categories a field keeps, the most frequent ones


CATEGORIES = tuple(f.name for f in FIELDS if f.kind == "category")


@dataclass(frozen=True)
class FieldStats:
    """What the train split says about one field.

    Attributes:
      count: in how many examples it is present.
      mean, std: per component of a numeric field (of the logarithm where `Field.log`), of the year
        of a time; empty for the others. 0 and 1 where it is never present, std 1 where constant.
      vocabulary: the categories, sorted; an id is a position in it. Empty for the others.
      cut_categories, cut_examples: how many categories beyond the `MAX_VOCABULARY` most frequent
        were left out of the vocabulary, and in how many examples they are: there they are missing.
    """

    count: int = 0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    vocabulary: tuple[str, ...] = ()
    cut_categories: int = 0
    cut_examples: int = 0

    def to_json(self) -> dict[str, Any]:
        """Plain numbers and lists."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def never_present(cls, f: Field) -> FieldStats:
        """The statistics of a field that no example has."""
        n = n_standardized(f)
        return cls(mean=(0.0,) * n, std=(1.0,) * n)


def n_standardized(f: Field) -> int:
    return {"numeric": f.size, "time": 1}.get(f.kind, 0)


class StatsAccumulator:
    """Adds up the statistics of a train split; partial sums of shards merge exactly.

    Numbers are added as whole multiples of 2**-40 in Python's unbounded integers: such sums, unlike
    those of floats, do not depend on the order, so a restarted or parallel run gives the same bits.

    Example:
      stats = StatsAccumulator()
      stats.add(Metadata.parse({"cloud_cover": 10}))
      stats.finish()["cloud_cover"].mean == (10.0,)
    """

    _BITS = 40

    def __init__(self) -> None:
        self.counts = dict.fromkeys((f.name for f in FIELDS), 0)
        self.sums = {f.name: [0] * n for f in FIELDS if (n := n_standardized(f))}
        self.squares = {name: [0] * len(sums) for name, sums in self.sums.items()}
        self.categories: dict[str, Counter[str]] = {name: Counter() for name in CATEGORIES}

    def add(self, metadata: Metadata) -> None:
        """Counts one example, as it is stored: after the crop and resize."""
        for f in FIELDS:
            value = metadata.values.get(f.name)
            if value is None:
                continue
            self.counts[f.name] += 1
            if isinstance(value, str):
                self.categories[f.name][value] += 1
                continue
            if f.name not in self.sums:
                continue
            numbers = (float(value.year),) if isinstance(value, datetime) else value
            for i, x in enumerate(numbers):
                n = round(math.ldexp(math.log(x) if f.log else x, self._BITS))
                self.sums[f.name][i] += n
                self.squares[f.name][i] += n * n

    def merge(self, other: StatsAccumulator) -> None:
        """Adds the examples of another; the order of merging does not matter."""
        for name, n in other.counts.items():
            self.counts[name] += n
        for mine, others in ((self.sums, other.sums), (self.squares, other.squares)):
            for name, sums in others.items():
                mine[name] = [a + b for a, b in zip(mine[name], sums, strict=True)]
        for name, counter in other.categories.items():
            self.categories[name].update(counter)

    def to_json(self) -> dict[str, Any]:
        """The partial sums as plain (long) integers and strings."""
        return {
            "counts": dict(self.counts),
            "sums": {name: list(sums) for name, sums in self.sums.items()},
            "squares": {name: list(sums) for name, sums in self.squares.items()},
            "categories": {name: dict(counter) for name, counter in self.categories.items()},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> StatsAccumulator:
        """The inverse of `to_json`.

        Raises:
          ValueError: these are not the partial sums of the fields there are now.
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
            raise ValueError(f"not the partial statistics of these fields: {error!r}") from error
        return new

    def finish(self) -> dict[str, FieldStats]:
        """The statistics of every field, in the order of `FIELDS`."""
        return {f.name: self._finish(f) for f in FIELDS}

    def _finish(self, f: Field) -> FieldStats:
        count = self.counts[f.name]
        if not count:
            return FieldStats.never_present(f)
        if f.kind == "category":
            # the most frequent first, and of equals the first in the alphabet
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
            # a spread that float32 can hardly tell from none would only magnify its rounding
            stds.append(std if std > 1e-6 * max(1.0, abs(mean)) else 1.0)
        return FieldStats(count=count, mean=tuple(means), std=tuple(stds))
