"""Prepared data: ArrayRecord shards in TFDS layout with a `schema.json` beside them.

    <name>-<split>.array_record-00000-of-00010    one tf.train.Example per record
    schema.json                                   classes, image size, statistics of the train split
    dataset_info.json, features.json, ...         metadata of TFDS

`ShardDataset` reads it, and so does TFDS, with or without TensorFlow:

    builder = tfds.builder_from_directory("prepared/eurosat")
    source = builder.as_data_source("train", decoders={"image": tfds.decode.SkipDecoding()})

Features: `image` (JPEG bytes), `label` (-1: unlabelled), `id`, and one per metadata field: numbers
are float32, NaN where missing; categories and times (ISO 8601, UTC) are text, "" where missing.
"""

from __future__ import annotations

import bisect
import itertools
import os
import re
from collections.abc import Iterable
from typing import Any, SupportsIndex

from satmip_jax.data.remote_cache import mirror
from satmip_jax.data.shard_format import (
    SCHEMA_FILE,
    ShardError,
    decode,
    decode_country,
    decode_id,
    shard_file,
)
from satmip_jax.data.shard_index import IndexDamagedError, RecordTooLargeError, ShardIndex
from satmip_jax.metadata.schema import Schema, SchemaError
from satmip_jax.runtime.paths import AnyPath, as_path, is_remote
from satmip_jax.runtime.stores import check_access

_READER_OPTIONS = "readahead_buffer_size:0,max_parallelism:0"
_SHARD = re.compile(r"\d{5}-of-\d{5}")


class ShardDataset:
    """Random access to one split of prepared data.

    It is picklable (worker processes open the files again) and safe to read from several threads.

    Args:
        data_dir: folder written by `satmip prepare`. ArrayRecord needs local files: a remote folder
            (gs://, s3://) is copied once to a local cache, see `remote_cache`.
        split: name of the split.

    Attributes:
        schema: the `Schema` beside the shards.

    Raises:
        ShardError: the folder or the split does not exist, or shards are missing, truncated or not
            as the schema states.

    Example:
        >>> from satmip_jax.data.shard_dataset import ShardDataset
        >>> dataset = ShardDataset(shards, "train")
        >>> len(dataset)
        64
        >>> sorted(dataset[0])
        ['id', 'image', 'index', 'label', 'metadata']
    """

    def __init__(self, data_dir: str | os.PathLike[str], split: str) -> None:
        _import_readers()
        self.data_dir = as_path(data_dir)
        check_access(self.data_dir)
        self.split = split
        self.schema = _load_schema(self.data_dir, split)
        names = _shard_names(self.data_dir, self.schema.name, split)
        folder = self.data_dir
        if is_remote(folder):
            folder = mirror(folder, names, version=(folder / SCHEMA_FILE).read_bytes())
        self._files = [os.fspath(folder / name) for name in names]
        self._readers: dict[int, Any] = {}
        self._indices: dict[int, ShardIndex] = {}
        lengths = [self._reader(i).num_records() for i in range(len(self._files))]
        self._ends = list(itertools.accumulate(lengths))
        stated = self.schema.splits[split]
        if len(self) != stated:
            raise ShardError(
                f"{self.data_dir}: the shards of {split!r} hold {len(self)} records, "
                f"{SCHEMA_FILE} states {stated}: copy or prepare it again"
            )

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_readers": {}}  # open files cannot be pickled

    def __setstate__(self, state: dict[str, Any]) -> None:
        _import_readers()
        self.__dict__.update(state)

    def __getitem__(self, index: SupportsIndex) -> dict[str, Any]:
        """Read one record.

        Returns:
            "image" (JPEG bytes), "metadata" (`Metadata`), "label" (int, -1 for none), "id" (str)
            and "index" (int, the number of the record in the split).

        Raises:
            IndexError: there is no such record.
            ShardError: the record is damaged or not as the schema states.
        """
        index = index.__index__()
        feature, where = self._features(index)
        return {**decode(feature, len(self.schema.classes), where), "index": index}

    def ids(self, indices: Iterable[SupportsIndex]) -> list[str]:
        """Return the ids of some records.

        Raises:
            IndexError: there is no such record.
            ShardError: a record is damaged.
        """
        return [decode_id(*self._features(index.__index__())) for index in indices]

    def countries(self, indices: Iterable[SupportsIndex]) -> list[str]:
        """Return the country codes of some records, "" where unknown.

        They need not be in the vocabulary of the train split.

        Raises:
            IndexError: there is no such record.
            ShardError: a record is damaged.
        """
        return [decode_country(*self._features(index.__index__())) for index in indices]

    def where(self, index: int) -> str:
        """Return the file of a record and its number there, for messages.

        Raises:
            IndexError: there is no such record.
        """
        shard, position = self._locate(index)
        return f"{self._files[shard]}, record {position}"

    def _locate(self, index: int) -> tuple[int, int]:
        """Return the number of a record's shard, and its number there."""
        if not 0 <= index < len(self):
            raise IndexError(
                f"{self.split!r} has {len(self)} records, so there is no record {index}"
            )
        shard = bisect.bisect_right(self._ends, index)
        return shard, index - (self._ends[shard - 1] if shard else 0)

    def _reader(self, shard: int) -> Any:
        # Two threads may open the same file at once; one of the handles is kept, which is harmless.
        if shard not in self._readers:
            from array_record.python.array_record_module import ArrayRecordReader

            path = self._files[shard]
            try:
                if shard not in self._indices:  # before the reader, which decompresses the index
                    self._indices[shard] = ShardIndex.read(path)
            except OSError as error:
                raise ShardError(f"{path}: cannot be opened: {error}") from error
            except IndexDamagedError as error:
                raise ShardError(
                    f"{path}: damaged or truncated: copy or prepare it again"
                ) from error
            try:
                reader = ArrayRecordReader(path, _READER_OPTIONS)
                intact = reader.ok()
            except (RuntimeError, ValueError) as error:
                raise ShardError(f"{path}: cannot be opened: {error}") from error
            if not intact:
                raise ShardError(f"{path}: damaged or truncated: copy or prepare it again")
            self._readers[shard] = reader
        return self._readers[shard]

    def _features(self, index: int) -> tuple[Any, str]:
        """Return the raw features of a record, and its file and number for messages."""
        from google.protobuf.message import DecodeError
        from tensorflow_datasets.proto import tf_example_pb2

        shard, position = self._locate(index)
        where = self.where(index)
        reader = self._reader(shard)
        try:
            self._indices[shard].check(self._files[shard], position)  # before it is decompressed
            (data,) = reader.read([position])
        except RecordTooLargeError as error:  # of a damaged header, or made to exhaust the memory
            raise ShardError(f"{where}: damaged or malicious: {error}") from error
        except (RuntimeError, ValueError, OSError) as error:
            raise ShardError(f"{where}: damaged: {error}") from error
        try:
            return tf_example_pb2.Example.FromString(data).features.feature, where
        except DecodeError as error:
            raise ShardError(f"{where}: not a tf.train.Example") from error


def _import_readers() -> None:
    """Import the readers now: several threads that import them at once may deadlock."""
    import array_record.python.array_record_module  # noqa: F401
    from tensorflow_datasets.proto import tf_example_pb2  # noqa: F401


def _load_schema(data_dir: AnyPath, split: str) -> Schema:
    if not (data_dir / SCHEMA_FILE).exists():
        raise ShardError(
            f"no prepared data in {data_dir}: there is no {SCHEMA_FILE}; "
            "prepare the data with `satmip prepare`"
        )
    try:
        schema = Schema.load(data_dir / SCHEMA_FILE)
    except SchemaError as error:
        raise ShardError(str(error)) from error
    if split not in schema.splits:
        raise ShardError(f"{data_dir} has no split {split!r}: it has {', '.join(schema.splits)}")
    return schema


def _shard_names(folder: AnyPath, name: str, split: str) -> list[str]:
    """Return the file names of a split's shards, in order; raise `ShardError` if any is missing."""
    prefix = f"{name}-{split}.array_record-"
    names = sorted(
        path.name
        for path in folder.iterdir()
        if path.name.startswith(prefix) and _SHARD.fullmatch(path.name.removeprefix(prefix))
    )
    count = int(names[0][-5:]) if names else 0
    expected = [shard_file(name, split, i, count) for i in range(count)]
    if not names or names != expected:
        missing = sorted(set(expected) - set(names)) or [f"{prefix}*"]
        surplus = sorted(set(names) - set(expected))
        raise ShardError(
            f"{folder}: "
            + (f"{surplus[0]} does not belong to {count} shards" if surplus else f"no {missing[0]}")
            + ": copy or prepare it again"
        )
    return names
