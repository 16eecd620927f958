"""`schema.json`: classes, statistics and splits of a prepared data set.

Plain Python without jax, so that the workers of a preparation start fast.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from satmip_jax.errors import SatmipError
from satmip_jax.metadata.field_stats import FieldStats
from satmip_jax.metadata.fields import FIELDS, Field, FieldError, select_fields
from satmip_jax.metadata.kinds import MAX_TEXT
from satmip_jax.metadata.statistics import MAX_VOCABULARY
from satmip_jax.runtime.files import FileContentError, read_json, write_atomically

MAX_CLASSES = 100_000
MAX_CENTRES = 4096
MAX_METRICS = 64
MAX_NAME = 256  # characters of the name of a class, split, metric or data set
MAX_IMAGE_SIZE = 16_384
MAX_SCHEMA_BYTES = 64 << 20
FORMAT = 1


class SchemaError(SatmipError, ValueError):
    """An invalid schema file; the message names the file, the key and the value."""


@dataclass(frozen=True)
class Schema:
    """The contents of `schema.json`, which lies beside the shards and in every checkpoint.

    It is the only place where statistics live.

    Attributes:
        name: Name of the data set.
        image_size: Side of the stored square images in pixels.
        classes: Names of the classes; a label is a position in it.
        image_mean: Mean of red, green and blue of pixels in [0, 1], train split.
        image_std: Their standard deviations.
        fields: Field -> statistics, for every field.
        splits: Split -> number of examples.
        provenance: Where the data came from and how they were prepared; plain JSON.
        geo_centres: Unit vectors, the centres of clusters of the train split's locations. Empty in
            prepared data: a run whose method classifies locations computes them, see
            `training.setup`.
        class_weights: Name of a weighted F1 score, such as "challenge_f1" -> the weight of each
            class, in the order of `classes`; empty if the data set defines no such score.
        unlisted: Names of the fields that the file does not list, because they were added to
            `FIELDS` later. They count as never present, and models of these data do without them.
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
    class_weights: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    unlisted: frozenset[str] = frozenset()

    def __hash__(self) -> int:  # a flax module that holds a schema is hashed
        return hash((self.name, self.image_size, self.classes))

    def select_fields(self, spec: str | Sequence[str]) -> tuple[Field, ...]:
        """Return the selected fields that the schema lists.

        A model is built from these. The schema of its checkpoint fixes what "all" or a group
        means, so the shapes of its parameters do not change when a field is added to `FIELDS`.

        Args:
            spec: See `fields.select_fields`.

        Raises:
            FieldError: An unknown name, or none of the selected fields is listed.

        Example:
            >>> from satmip_jax.data.shard_dataset import ShardDataset
            >>> schema = ShardDataset(shards, "train").schema
            >>> [f.name for f in schema.select_fields("Time+cloud_cover")]
            ['timestamp', 'cloud_cover']
        """
        selected = tuple(f for f in select_fields(spec) if f.name not in self.unlisted)
        if not selected:
            raise FieldError(
                f"the field selection {spec!r} leaves no field: the data set {self.name!r} was "
                f"prepared without {', '.join(sorted(self.unlisted))}; prepare it again"
            )
        return selected

    @property
    def has_own_counts(self) -> bool:
        """Whether the statistics are of these data, not of others (`--statistics-from`)."""
        return bool(self.provenance.get("statistics", "train") == "train")

    def seen_fields(self, spec: str | Sequence[str]) -> tuple[Field, ...]:
        """Return the selected fields that a training on these data saw: images know them.

        Args:
            spec: See `fields.select_fields`.

        Example:
            >>> from dataclasses import replace
            >>> from satmip_jax.data.shard_dataset import ShardDataset
            >>> from satmip_jax.metadata.field_stats import FieldStats
            >>> schema = ShardDataset(shards, "train").schema
            >>> fields = {**schema.fields, "utm_zone": FieldStats.never_present(0)}
            >>> [f.name for f in replace(schema, fields=fields).seen_fields("Location")]
            ['location', 'country_code']
        """
        return tuple(
            f
            for f in self.select_fields(spec)
            if self.fields[f.name].count or not (self.has_own_counts or f.kind.has_vocabulary)
        )

    @functools.cached_property
    def category_ids(self) -> dict[str, dict[str, int]]:
        """Field with a vocabulary -> category -> id."""
        return {
            f.name: {text: i for i, text in enumerate(self.fields[f.name].vocabulary)}
            for f in FIELDS
            if f.kind.has_vocabulary
        }

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON; `from_json` inverts it."""
        data = {
            "format": FORMAT,
            "name": self.name,
            "image_size": int(self.image_size),
            "classes": list(self.classes),
            "image_mean": [float(x) for x in self.image_mean],
            "image_std": [float(x) for x in self.image_std],
            "fields": {
                name: stats.to_json()
                for name, stats in self.fields.items()
                if name not in self.unlisted
            },
            "splits": {name: int(n) for name, n in self.splits.items()},
            "provenance": dict(self.provenance),
        }
        if self.geo_centres:
            data["geo_centres"] = [list(centre) for centre in self.geo_centres]
        if self.class_weights:
            data["class_weights"] = {
                name: [float(w) for w in weights] for name, weights in self.class_weights.items()
            }
        return data

    @classmethod
    def from_json(cls, data: object, file: object = "schema") -> Schema:
        """Read and validate everything; a field that the data do not list is `unlisted`.

        Args:
            data: As from `to_json`; it may come from an untrusted file.
            file: Name of the file, for messages.

        Raises:
            SchemaError: The data are invalid; the message names `file`, the key and the value.
        """
        top = _Reader(data, str(file))
        top.integer("format", FORMAT, FORMAT)
        fields = top.child("fields")
        names = {f.name for f in FIELDS}
        for name in fields.data:
            if name not in names:
                fields.fail(name, "no such metadata field; was it written by a newer version?")
        splits = top.child("splits")
        for name in splits.data:
            splits.text(name, name)
        std = top.numbers("image_std", 3, 0.0, 1.0)
        if min(std) <= 0:
            top.fail("image_std", f"{std} must be above zero")
        classes = top.strings("classes", MAX_CLASSES, MAX_NAME)
        return cls(
            name=top.text("name"),
            image_size=top.integer("image_size", 1, MAX_IMAGE_SIZE),
            classes=classes,
            image_mean=top.numbers("image_mean", 3, 0.0, 1.0),  # type: ignore[arg-type]
            image_std=std,  # type: ignore[arg-type]
            fields={f.name: _read_stats(fields, f) for f in FIELDS},
            splits={name: splits.integer(name, 0, 2**40) for name in splits.data},
            provenance=top.child("provenance").data,
            geo_centres=_read_centres(top) if "geo_centres" in top.data else (),
            class_weights=_read_class_weights(top, len(classes)),
            unlisted=frozenset(names.difference(fields.data)),
        )

    def save(self, path: Any) -> None:
        """Write `path` atomically, after checking that `load` would accept it.

        Raises:
            SchemaError: It would not.
        """
        text = json.dumps(self.to_json(), indent=1, allow_nan=False)
        Schema.from_json(json.loads(text), path)
        write_atomically(path, text)

    @classmethod
    def load(cls, path: Any) -> Schema:
        """Read a schema file, which may be untrusted.

        Raises:
            FileNotFoundError: There is no such file.
            SchemaError: The file is not a valid schema; the message names the file, the key and the
                value.
        """
        try:
            data = read_json(path, max_bytes=MAX_SCHEMA_BYTES, allow_nan=False)
        except FileContentError as error:
            raise SchemaError(str(error)) from error
        return cls.from_json(data, path)


class _Reader:
    """Validated access to a JSON object; errors read "file: key.key: what is wrong"."""

    def __init__(self, data: object, file: str, path: tuple[str, ...] = ()) -> None:
        if not isinstance(data, dict):
            where = ": ".join([file, ".".join(path)] if path else [file])
            raise SchemaError(f"{where}: {_short(data)} should be an object")
        self.data, self.file, self.path = data, file, path

    def fail(self, key: str, problem: str) -> NoReturn:
        raise SchemaError(f"{self.file}: {'.'.join((*self.path, _key(key)))}: {problem}")

    def value(self, key: str) -> Any:
        if key not in self.data:
            self.fail(key, "is missing")
        return self.data[key]

    def child(self, key: str) -> _Reader:
        return _Reader(self.value(key), self.file, (*self.path, _key(key)))

    def text(self, key: str, value: object = None, longest: int = MAX_NAME) -> str:
        value = self.value(key) if value is None else value
        if not isinstance(value, str) or not 0 < len(value) <= longest or not value.isprintable():
            self.fail(key, f"{_short(value)} should be 1 to {longest} printable characters")
        return value

    def strings(self, key: str, most: int, longest: int) -> tuple[str, ...]:
        value = self.value(key)
        if not isinstance(value, list) or len(value) > most:
            self.fail(key, f"{_short(value)} should be a list of at most {most} strings")
        texts = tuple(self.text(key, "" if v is None else v, longest) for v in value)
        if len(set(texts)) != len(texts):
            self.fail(key, "holds a name twice")
        return texts

    def integer(self, key: str, low: int, high: int) -> int:
        value = self.value(key)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            self.fail(key, f"{_short(value)} should be a whole number from {low} to {high}")
        return value

    def numbers(self, key: str, n: int, low: float, high: float) -> tuple[float, ...]:
        value = self.value(key)
        if not isinstance(value, list) or len(value) != n:
            self.fail(key, f"{_short(value)} should be a list of {n} numbers")
        for v in value:  # a NaN is outside every range
            if isinstance(v, bool) or not isinstance(v, int | float) or not low <= v <= high:
                self.fail(key, f"{_short(v)} should be a number from {low:g} to {high:g}")
        return tuple(float(v) for v in value)


def _read_stats(fields: _Reader, f: Field) -> FieldStats:
    n = f.kind.n_standardized
    if f.name not in fields.data:
        return FieldStats.never_present(n)
    reader = fields.child(f.name)
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
    if stats.vocabulary and not f.kind.has_vocabulary:
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


def _read_class_weights(top: _Reader, n_classes: int) -> dict[str, tuple[float, ...]]:
    if "class_weights" not in top.data:
        return {}
    reader = top.child("class_weights")
    if len(reader.data) > MAX_METRICS:
        top.fail("class_weights", f"{len(reader.data)} metrics; at most {MAX_METRICS}")
    return {
        reader.text(name, name): reader.numbers(name, n_classes, 0.0, 1e9) for name in reader.data
    }


def _short(value: object) -> str:
    text = repr(value) if isinstance(value, str | int | float | None) else type(value).__name__
    return text if len(text) <= 60 else text[:57] + "..."


def _key(key: str) -> str:
    return key if key.isidentifier() and len(key) <= 60 else _short(key)
