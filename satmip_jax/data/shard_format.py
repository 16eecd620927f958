"""One record of a shard: the features of its tf.train.Example, checked and turned into values."""

from __future__ import annotations

import functools
import math
import operator
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from satmip_jax.errors import SatmipError
from satmip_jax.metadata.fields import FIELDS, MAX_TEXT, Field
from satmip_jax.metadata.record import Metadata, Value

MAX_ID = 1024  # bytes


class ShardError(SatmipError, ValueError):
    """Prepared data cannot be read; the message names the file, and the record if it is one."""


@dataclass(frozen=True)
class Record:
    """One example as a shard stores it: `label` is a class number, -1 for none."""

    id: str
    image: bytes
    metadata: Metadata
    label: int = -1


def is_text(field: Field) -> bool:
    """Whether a field is stored as text (categories and times) rather than as numbers."""
    return field.kind in ("category", "time")


def encode(record: Record) -> bytes:
    """The tf.train.Example of a record, as TFDS would write it (see `shard_format.tfds_features`).

    Its features are sorted, so that the same record gives the same bytes: protobuf's own order is
    random. What is missing is NaN among numbers and "" among texts.
    """
    from tensorflow_datasets.proto import tf_example_pb2

    example = tf_example_pb2.Example()
    feature = example.features.feature
    feature["image"].bytes_list.value.append(record.image)
    feature["label"].int64_list.value.append(record.label)
    feature["id"].bytes_list.value.append(record.id.encode())
    known = record.metadata.to_json()
    for field in FIELDS:
        value: Any = known.get(field.name)
        if is_text(field):
            feature[field.name].bytes_list.value.append((value or "").encode())
        else:
            if value is None:
                value = [math.nan] * field.size
            elif field.size == 1:
                value = [value]
            feature[field.name].float_list.value.extend(value)
    return example.SerializeToString(deterministic=True)


def decode(feature: Any, classes: int, where: str) -> dict[str, Any]:
    """Reads a record.

    Args:
      feature: The mapping name -> tf.train.Feature of an example.
      classes: How many classes there are.
      where: Names the record in errors.

    Returns:
      "image" (bytes), "metadata" (`Metadata`), "label" (int) and "id" (str).

    Raises:
      ShardError: A feature is absent, of another type or length, or not in its range.
    """
    label = _integer(feature, "label", where)
    if not -1 <= label < classes:
        raise ShardError(f"{where}: label {label}, of {classes} classes")
    values: dict[str, Value] = {}
    for name, field, text, low, high in _fields():
        if text:
            value = _checked_text(field, _text(feature, name, where, 4 * MAX_TEXT), low, high)
        else:
            numbers = _numbers(feature, name, field.size, where)
            value = _checked_numbers(name, numbers, low, high)
        if value is not None:
            values[name] = value
    return {
        "image": _bytes(feature, "image", where),
        "metadata": Metadata(values),
        "label": label,
        "id": decode_id(feature, where),
    }


def decode_id(feature: Any, where: str) -> str:
    """The id of a record alone."""
    return _text(feature, "id", where, MAX_ID)


def is_id(text: str) -> bool:
    """Whether a text will do as an id: printable, so that it can be shown, and not too long."""
    return bool(text) and text.isprintable() and len(text.encode()) <= MAX_ID


def _bytes(feature: Any, key: str, where: str) -> bytes:
    values: Any = feature[key].bytes_list.value  # of a feature that is not there: none
    if len(values) != 1:
        raise ShardError(f"{where}: {key!r} holds {len(values)} byte strings instead of 1")
    return values[0]


def _text(feature: Any, key: str, where: str, limit: int) -> str:
    data = _bytes(feature, key, where)
    if len(data) > limit:
        raise ShardError(f"{where}: {key!r} takes {len(data)} bytes, more than {limit}")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise ShardError(f"{where}: {key!r} is not UTF-8") from error
    if not text.isprintable():  # ids and names go to terminals and reports
        raise ShardError(f"{where}: {key!r} holds characters that cannot be printed")
    return text


def _integer(feature: Any, key: str, where: str) -> int:
    values: Any = feature[key].int64_list.value if key in feature else ()
    if len(values) != 1:
        raise ShardError(f"{where}: {key!r} holds {len(values)} integers instead of 1")
    return values[0]


def _numbers(feature: Any, key: str, size: int, where: str) -> tuple[float, ...]:
    values = tuple(feature[key].float_list.value)
    if len(values) != size:
        raise ShardError(f"{where}: {key!r} holds {len(values)} numbers instead of {size}")
    return values


# Shards may come from anywhere, so values are checked as on the way in: what `Metadata.parse` would
# refuse is missing. It takes 200 us a record; these know the ordinary cases, at a tenth of that.


@functools.lru_cache(maxsize=1 << 16)
def _parsed(name: str, value: str | tuple[float, ...]) -> Value | None:
    return Metadata.parse({name: value}).values.get(name)


def _checked_numbers(
    name: str, values: tuple[float, ...], low: tuple[float, ...], high: tuple[float, ...]
) -> Value | None:
    if values[0] != values[0]:  # NaN: missing
        return None
    if all(map(operator.lt, low, values)) and all(map(operator.lt, values, high)):
        return values
    return _parsed(name, values)


def _checked_text(
    field: Field, text: str, low: tuple[float, ...], high: tuple[float, ...]
) -> Value | None:
    if not text:
        return None
    if field.kind == "time":  # few are alike, so a cache does not help
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            return None
        if moment.tzinfo is UTC and low[0] <= moment.year <= high[0]:
            return moment
    return _parsed(field.name, text)


@functools.cache
def _fields() -> tuple[tuple[str, Field, bool, tuple[float, ...], tuple[float, ...]], ...]:
    """What `decode` asks of the fields of every record: name, field, is_text, bounds."""
    return tuple((f.name, f, is_text(f), *f.bounds) for f in FIELDS)


SCHEMA_FILE = "schema.json"


_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


def shard_file(name: str, split: str, index: int, count: int) -> str:
    """The file name of a shard: "eurosat-train.array_record-00003-of-00019"."""
    for text in (name, split):
        if not _NAME.fullmatch(text) or split == "all":  # TFDS keeps "all" for itself
            raise ValueError(f"{text!r} cannot name a data set or split: letters, digits and _")
    return f"{name}-{split}.array_record-{index:05d}-of-{count:05d}"


def tfds_features(image_size: int, classes: Sequence[str]) -> Any:
    """The `tfds.features.FeaturesDict` of a prepared data set."""
    import tensorflow_datasets as tfds

    features: dict[str, Any] = {
        "image": tfds.features.Image(
            shape=(image_size, image_size, 3), dtype=np.uint8, encoding_format="jpeg"
        ),
        "label": tfds.features.ClassLabel(names=list(classes))
        if classes
        else tfds.features.Scalar(dtype=np.int64),
        "id": tfds.features.Text(),
    }
    for field in FIELDS:
        if is_text(field):
            features[field.name] = tfds.features.Text(doc=field.unit)
        else:
            shape = () if field.size == 1 else (field.size,)
            features[field.name] = tfds.features.Tensor(
                shape=shape, dtype=np.float32, doc=field.unit
            )
    return tfds.features.FeaturesDict(features)
