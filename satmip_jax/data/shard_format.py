"""The format of shards: records as tf.train.Examples, file names, TFDS features."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from satmip_jax.errors import SatmipError
from satmip_jax.metadata.countries import country_code
from satmip_jax.metadata.fields import FIELDS
from satmip_jax.metadata.kinds import MAX_TEXT, BadValueError, Kind, Value
from satmip_jax.metadata.record import Metadata

MAX_ID = 1024  # bytes
SCHEMA_FILE = "schema.json"

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


class ShardError(SatmipError, ValueError):
    """Prepared data that cannot be read; the message names the file and, if known, the record."""


@dataclass(frozen=True)
class Record:
    """One example as a shard stores it.

    Attributes:
        id: Printable name, unique in the data set.
        image: JPEG bytes.
        metadata: Its metadata, after the crop and resize.
        label: Class number, -1 for none.
    """

    id: str
    image: bytes
    metadata: Metadata
    label: int = -1


# --- records --------------------------------------------------------------------------------------


def encode(record: Record) -> bytes:
    """Return the tf.train.Example of a record, as TFDS would write it (see `tfds_features`).

    Features are sorted, so that equal records give equal bytes: protobuf's own order is random.
    A missing field is NaN if it is stored as numbers, "" if it is stored as text.
    """
    from tensorflow_datasets.proto import tf_example_pb2

    example = tf_example_pb2.Example()
    feature = example.features.feature
    feature["image"].bytes_list.value.append(record.image)
    feature["label"].int64_list.value.append(record.label)
    feature["id"].bytes_list.value.append(record.id.encode())
    for field in FIELDS:
        value = record.metadata.values.get(field.name)
        stored: Any = None if value is None else field.kind.dump(value)
        if field.kind.stored_as_text:
            feature[field.name].bytes_list.value.append((stored or "").encode())
        else:
            missing = [math.nan] * field.kind.components
            feature[field.name].float_list.value.extend(stored or missing)
    return example.SerializeToString(deterministic=True)


def decode(feature: Any, classes: int, where: str) -> dict[str, Any]:
    """Read and validate a record.

    A metadata field without a feature is missing: the shard may be older than the field.

    Args:
        feature: The mapping name -> tf.train.Feature of an example.
        classes: Number of classes.
        where: Name of the record, for messages.

    Returns:
        "image" (bytes), "metadata" (`Metadata`), "label" (int) and "id" (str).

    Raises:
        ShardError: Image, label or id is absent; a feature has another type or length; or the label
            is out of range.
    """
    label = _integer(feature, "label", where)
    if not -1 <= label < classes:
        raise ShardError(f"{where}: label {label}, of {classes} classes")
    values: dict[str, Value] = {}
    for name, is_text, components, recognize, parse in _readers():
        stored: Any
        if is_text:
            stored = _text(feature, name, where, 4 * MAX_TEXT, default="")
            if not stored:
                continue
        else:
            stored = _numbers(feature, name, components, where)
            if stored is None or stored[0] != stored[0]:  # NaN
                continue
        value = recognize(stored)
        if value is None:
            value = parse(stored)
        if value is not None:
            values[name] = value
    return {
        "image": _bytes(feature, "image", where),
        "metadata": Metadata(values),
        "label": label,
        "id": decode_id(feature, where),
    }


def decode_id(feature: Any, where: str) -> str:
    """Read the id of a record alone.

    Args:
        feature: The mapping name -> tf.train.Feature of an example.
        where: Name of the record, for messages.

    Raises:
        ShardError: The id is absent, too long or not printable.
    """
    return _text(feature, "id", where, MAX_ID)


def decode_country(feature: Any, where: str) -> str:
    """Read the country code of a record alone; "" where it is missing or not valid.

    Args:
        feature: The mapping name -> tf.train.Feature of an example.
        where: Name of the record, for messages.

    Raises:
        ShardError: The code is not a text.
    """
    stored = _text(feature, "country_code", where, 4 * MAX_TEXT, default="")
    return country_code(stored) or "" if stored else ""


def is_id(text: str) -> bool:
    """Return whether a text may be an id: not empty, printable, at most `MAX_ID` bytes."""
    return bool(text) and text.isprintable() and len(text.encode()) <= MAX_ID


@functools.cache
def _readers() -> tuple[
    tuple[str, bool, int, Callable[[Any], Value | None], Callable[[Any], Value | None]], ...
]:
    """Return what `decode` needs of each field: name, is text, components, recognize, parse.

    Shards may be untrusted, so values are validated like those of a source: what `Kind.parse`
    would refuse is missing. Parsing takes 200 us a record. `Kind.recognize` accepts ordinary values
    in a tenth of that, and other values repeat: they are parsed once.
    """
    return tuple(
        (
            f.name,
            f.kind.stored_as_text,
            f.kind.components,
            f.kind.recognize,
            functools.lru_cache(maxsize=1 << 12)(functools.partial(_parse, f.kind)),
        )
        for f in FIELDS
    )


def _parse(kind: Kind[Any], stored: str | tuple[float, ...]) -> Value | None:
    """Return the value, or None if it is not valid."""
    try:
        value: Value = kind.parse(stored)
    except BadValueError:
        return None
    return value


def _bytes(feature: Any, key: str, where: str) -> bytes:
    values: Any = feature[key].bytes_list.value  # empty if there is no such feature
    if len(values) != 1:
        raise ShardError(f"{where}: {key!r} holds {len(values)} byte strings instead of 1")
    return values[0]


def _text(feature: Any, key: str, where: str, limit: int, default: str | None = None) -> str:
    """Return a text; without the feature `default`, or an error if that is None."""
    if default is not None and key not in feature:
        return default
    data = _bytes(feature, key, where)
    if len(data) > limit:
        raise ShardError(f"{where}: {key!r} takes {len(data)} bytes, more than {limit}")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise ShardError(f"{where}: {key!r} is not UTF-8") from error
    if not text.isprintable():  # ids and names are shown in terminals and reports
        raise ShardError(f"{where}: {key!r} holds characters that cannot be printed")
    return text


def _integer(feature: Any, key: str, where: str) -> int:
    values: Any = feature[key].int64_list.value if key in feature else ()
    if len(values) != 1:
        raise ShardError(f"{where}: {key!r} holds {len(values)} integers instead of 1")
    return values[0]


def _numbers(feature: Any, key: str, size: int, where: str) -> tuple[float, ...] | None:
    """Return `size` numbers; None without the feature."""
    if key not in feature:
        return None
    values = tuple(feature[key].float_list.value)
    if len(values) != size:
        raise ShardError(f"{where}: {key!r} holds {len(values)} numbers instead of {size}")
    return values


# --- files ----------------------------------------------------------------------------------------


def shard_file(name: str, split: str, index: int, count: int) -> str:
    """Return the file name of a shard.

    Raises:
        ValueError: The name or the split holds other characters than letters, digits and _.

    Example:
        >>> from satmip_jax.data.shard_format import shard_file
        >>> shard_file("eurosat", "train", 3, 19)
        'eurosat-train.array_record-00003-of-00019'
    """
    for text in (name, split):
        if not _NAME.fullmatch(text) or split == "all":  # TFDS reserves "all"
            raise ValueError(f"{text!r} cannot name a data set or split: letters, digits and _")
    return f"{name}-{split}.array_record-{index:05d}-of-{count:05d}"


def tfds_features(image_size: int, classes: Sequence[str]) -> Any:
    """Return the `tfds.features.FeaturesDict` of a prepared data set.

    Args:
        image_size: Side of the stored squares in pixels.
        classes: Names of the classes; empty if there are no labels.
    """
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
        if field.kind.stored_as_text:
            features[field.name] = tfds.features.Text(doc=field.unit)
        else:
            n = field.kind.components
            features[field.name] = tfds.features.Tensor(
                shape=() if n == 1 else (n,), dtype=np.float32, doc=field.unit
            )
    return tfds.features.FeaturesDict(features)
