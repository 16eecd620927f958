"""What the train split says about the metadata, and `schema.json`, which keeps it.

Plain Python: no jax, so that the workers of a preparation stay light.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from satmip_jax.errors import SatmipError
from satmip_jax.metadata.fields import FIELDS, MAX_TEXT, Field
from satmip_jax.metadata.statistics import CATEGORIES, MAX_VOCABULARY, FieldStats, n_standardized

MAX_CLASSES = 100_000
MAX_CENTRES = 4096
MAX_METRICS = 64
MAX_NAME = 256  # characters of a class, split or data set name
MAX_IMAGE_SIZE = 16_384
MAX_SCHEMA_BYTES = 64 << 20
FORMAT = 1


class SchemaError(SatmipError, ValueError):
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
        a run whose method classifies places finds them and keeps them, see `training.setup`.
      class_weights: name of a weighted F1 score, such as "challenge_f1" -> the weight of each
        class, in the order of `classes`; empty where the data set defines no such score.
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
    class_weights: Mapping[str, tuple[float, ...]] = dataclasses.field(default_factory=dict)

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
        data = {
            "format": FORMAT,
            "name": self.name,
            "image_size": int(self.image_size),
            "classes": list(self.classes),
            "image_mean": [float(x) for x in self.image_mean],
            "image_std": [float(x) for x in self.image_std],
            "fields": {name: stats.to_json() for name, stats in self.fields.items()},
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
    reader, n = fields.child(f.name), n_standardized(f)
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


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is no JSON number")
