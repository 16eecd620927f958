"""What the train split says about the metadata, and `schema.json`, which keeps it.

Plain Python: no jax, so that the workers of a preparation stay light.
"""

from __future__ import annotations

import functools
import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from satmip_jax.metadata.fields import FIELDS, MAX_TEXT, Field
from satmip_jax.metadata.record import Metadata

MAX_VOCABULARY = 4096  # categories a field keeps, the most frequent ones
MAX_CLASSES = 100_000
MAX_CENTRES = 4096
MAX_NAME = 256  # characters of a class, split or data set name
MAX_IMAGE_SIZE = 16_384
MAX_SCHEMA_BYTES = 64 << 20
FORMAT = 1

CATEGORIES = tuple(f.name for f in FIELDS if f.kind == "category")


# --- statistics -----------------------------------------------------------------------------------


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
        n = _n_standardised(f)
        return cls(mean=(0.0,) * n, std=(1.0,) * n)


def _n_standardised(f: Field) -> int:
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
        self.sums = {f.name: [0] * n for f in FIELDS if (n := _n_standardised(f))}
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


# --- the schema -----------------------------------------------------------------------------------


class SchemaError(ValueError):
    """A schema file is not what it should be; the message names the file and the key."""


@dataclass(frozen=True)
class Schema:
    """What `schema.json` holds beside the shards: the only place where statistics live.

    Attributes:
      name: of the data set.
      image_size: side of the stored square images in pixels.
      classes: names; a label is a position in it.
      image_mean, image_std: red, green, blue of pixels in [0, 1], train split.
      fields: name -> statistics, of every field.
      splits: name -> number of examples.
      provenance: where it came from and how it was made; plain JSON.
      geo_centres: unit vectors, centres of the places of the train split; empty in prepared data:
        a run whose method classifies places finds them (see `train.run_schema`) and keeps them.
    """

    name: str
    image_size: int
    classes: tuple[str, ...]
    image_mean: tuple[float, float, float]
    image_std: tuple[float, float, float]
    fields: Mapping[str, FieldStats]
    splits: Mapping[str, int]
    provenance: Mapping[str, Any]
    geo_centres: tuple[tuple[float, ...], ...] = ()

    def __hash__(self) -> int:  # a flax module that holds a schema is hashed
        return hash((self.name, self.image_size, self.classes))

    @functools.cached_property
    def category_ids(self) -> dict[str, dict[str, int]]:
        """Field -> category -> id."""
        return {
            name: {text: i for i, text in enumerate(self.fields[name].vocabulary)}
            for name in CATEGORIES
        }

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; `from_json` inverts it."""
        return {
            "format": FORMAT,
            "name": self.name,
            "image_size": int(self.image_size),
            "classes": list(self.classes),
            "image_mean": [float(x) for x in self.image_mean],
            "image_std": [float(x) for x in self.image_std],
            "fields": {name: stats.to_json() for name, stats in self.fields.items()},
            "splits": {name: int(n) for name, n in self.splits.items()},
            "provenance": dict(self.provenance),
            **({"geo_centres": [list(c) for c in self.geo_centres]} if self.geo_centres else {}),
        }

    @classmethod
    def from_json(cls, data: object, file: object = "schema") -> Schema:
        """Reads and checks everything; a field the file does not know counts as never present.

        Raises:
          SchemaError: naming `file`, the key, and what is wrong with it.
        """
        top = _Reader(data, str(file))
        top.integer("format", FORMAT, FORMAT)
        fields = top.child("fields")
        known = {f.name for f in FIELDS}
        for name in fields.data:
            if name not in known:
                fields.fail(name, "no such metadata field; was it written by a newer version?")
        splits = top.child("splits")
        for name in splits.data:
            splits.text(name, name)
        std = top.numbers("image_std", 3, 0.0, 1.0)
        if min(std) <= 0:
            top.fail("image_std", f"{std} must be above zero")
        return cls(
            name=top.text("name"),
            image_size=top.integer("image_size", 1, MAX_IMAGE_SIZE),
            classes=top.strings("classes", MAX_CLASSES, MAX_NAME),
            image_mean=top.numbers("image_mean", 3, 0.0, 1.0),  # type: ignore[arg-type]
            image_std=std,  # type: ignore[arg-type]
            fields={f.name: _read_stats(fields, f) for f in FIELDS},
            splits={name: splits.integer(name, 0, 2**40) for name in splits.data},
            provenance=top.child("provenance").data,
            geo_centres=_read_centres(top) if "geo_centres" in top.data else (),
        )

    def save(self, path: Any) -> None:
        """Writes `path` atomically, after checking that `load` would accept it."""
        from etils import epath

        text = json.dumps(self.to_json(), indent=1, allow_nan=False)
        Schema.from_json(json.loads(text), path)
        temporary = epath.Path(f"{path}.tmp")
        temporary.write_text(text)
        temporary.replace(path)

    @classmethod
    def load(cls, path: Any) -> Schema:
        """Reads a schema somebody else may have written.

        Raises:
          FileNotFoundError: there is none.
          SchemaError: it is not a valid schema; names the file, the key and the value.
        """
        from etils import epath

        file = epath.Path(path)
        if (size := file.stat().length) > MAX_SCHEMA_BYTES:
            raise SchemaError(f"{path}: {size} bytes; a schema has at most {MAX_SCHEMA_BYTES}")
        try:
            data = json.loads(file.read_bytes(), parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise SchemaError(f"{path}: not JSON: {error}") from error
        return cls.from_json(data, path)


class _Reader:
    """Takes checked values out of a JSON object; errors say "file: key.key: what is wrong"."""

    def __init__(self, data: object, file: str, path: tuple[str, ...] = ()) -> None:
        if not isinstance(data, dict):
            where = ": ".join([file, ".".join(path)] if path else [file])
            raise SchemaError(f"{where}: {_short(data)} should be an object")
        self.data, self.file, self.path = data, file, path

    def fail(self, key: str, problem: str) -> None:
        raise SchemaError(f"{self.file}: {'.'.join((*self.path, _key(key)))}: {problem}")

    def _get(self, key: str) -> Any:
        if key not in self.data:
            self.fail(key, "is missing")
        return self.data[key]

    def child(self, key: str) -> _Reader:
        return _Reader(self._get(key), self.file, (*self.path, _key(key)))

    def text(self, key: str, value: object = None, longest: int = MAX_NAME) -> str:
        value = self._get(key) if value is None else value
        if not isinstance(value, str) or not 0 < len(value) <= longest or not value.isprintable():
            self.fail(key, f"{_short(value)} should be 1 to {longest} printable characters")
        return str(value)

    def strings(self, key: str, most: int, longest: int) -> tuple[str, ...]:
        value = self._get(key)
        if not isinstance(value, list) or len(value) > most:
            self.fail(key, f"{_short(value)} should be a list of at most {most} strings")
        texts = tuple(self.text(key, "" if v is None else v, longest) for v in value)
        if len(set(texts)) != len(texts):
            self.fail(key, "holds a name twice")
        return texts

    def integer(self, key: str, low: int, high: int) -> int:
        value = self._get(key)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            self.fail(key, f"{_short(value)} should be a whole number from {low} to {high}")
        return int(value)

    def numbers(self, key: str, n: int, low: float, high: float) -> tuple[float, ...]:
        value = self._get(key)
        if not isinstance(value, list) or len(value) != n:
            self.fail(key, f"{_short(value)} should be a list of {n} numbers")
        for v in value:  # a NaN is in no range
            if isinstance(v, bool) or not isinstance(v, int | float) or not low <= v <= high:
                self.fail(key, f"{_short(v)} should be a number from {low:g} to {high:g}")
        return tuple(float(v) for v in value)


def _read_stats(fields: _Reader, f: Field) -> FieldStats:
    if f.name not in fields.data:
        return FieldStats.never_present(f)
    reader, n = fields.child(f.name), _n_standardised(f)
    stats = FieldStats(
        count=reader.integer("count", 0, 2**40),
        mean=reader.numbers("mean", n, -1e9, 1e9),
        std=reader.numbers("std", n, 1e-9, 1e9),
        vocabulary=reader.strings("vocabulary", MAX_VOCABULARY, MAX_TEXT),
        cut_categories=reader.integer("cut_categories", 0, 2**40),
        cut_examples=reader.integer("cut_examples", 0, 2**40),
    )
    if list(stats.vocabulary) != sorted(stats.vocabulary):
        reader.fail("vocabulary", "should be sorted")
    if stats.vocabulary and f.kind != "category":
        reader.fail("vocabulary", "should be empty: this field has no categories")
    return stats


def _read_centres(top: _Reader) -> tuple[tuple[float, ...], ...]:
    rows = top.data["geo_centres"]
    if not isinstance(rows, list) or len(rows) > MAX_CENTRES:
        top.fail("geo_centres", f"{_short(rows)} should be a list of at most {MAX_CENTRES} centres")
    reader = _Reader({f"_{i}": row for i, row in enumerate(rows)}, top.file, ("geo_centres",))
    centres = tuple(reader.numbers(key, 3, -1.0, 1.0) for key in reader.data)
    for key, centre in zip(reader.data, centres, strict=True):
        if abs(math.hypot(*centre) - 1) > 1e-5:
            reader.fail(key, f"{centre} should be of unit length")
    return centres


def _short(value: object) -> str:
    text = repr(value) if isinstance(value, str | int | float | None) else type(value).__name__
    return text if len(text) <= 60 else text[:57] + "..."


def _key(key: str) -> str:
    return key if key.isidentifier() and len(key) <= 60 else _short(key)


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is no JSON number")
