"""Writing of shards, and of the metadata that makes a folder of shards a TFDS data set."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from etils import epath

from satmip_jax.data.shard_format import SCHEMA_FILE, Record, encode, shard_file, tfds_features
from satmip_jax.metadata.schema import Schema
from satmip_jax.runtime.files import atomic_path
from satmip_jax.runtime.paths import as_path, file_size

# One record per chunk suits random access. JPEGs do not compress: the default, zstd, takes 180 us
# longer than snappy to find that out; snappy's files are 1 % larger.
_WRITER_OPTIONS = "group_size:1,snappy"
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


def write_shard(path: str | os.PathLike[str], records: Iterable[Record]) -> int:
    """Write one shard; the file appears under its name only when it is complete.

    Args:
        path: path of the file, on a local disk or in a bucket.
        records: examples, consumed one at a time.

    Returns:
        The number of records written.

    Raises:
        OSError: the file cannot be written, for example on a full disk. An exception of `records`
            is raised unchanged.
    """
    from array_record.python.array_record_module import ArrayRecordWriter

    count = 0
    with atomic_path(path, durable=True) as temporary:
        with _system_errors(path):
            writer = ArrayRecordWriter(str(temporary), _WRITER_OPTIONS)
        try:
            for record in records:
                data = encode(record)
                with _system_errors(path):
                    writer.write(data)
                count += 1
        except BaseException:
            with suppress(RuntimeError):  # the first error is the cause
                writer.close()
            raise
        with _system_errors(path):
            writer.close()
    return count


@contextmanager
def _system_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """Raise the RuntimeErrors of ArrayRecord as OSErrors, with the number that their text means."""
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        number = next((n for n in _DISK_FULL if os.strerror(n) in text), errno.EIO)
        reason = os.strerror(number) if number in _DISK_FULL else text
        raise OSError(number, reason, os.fspath(path)) from error


def finish(
    out: str | os.PathLike[str], schema: Schema, lengths: Mapping[str, Sequence[int]]
) -> None:
    """Write `schema.json` and the TFDS metadata beside finished shards.

    Args:
        out: folder of the shards.
        schema: schema of the data; its `name` is that of the shard files.
        lengths: split -> number of records of each of its shards, in order.
    """
    import tensorflow_datasets as tfds

    out = as_path(out)
    template = tfds.core.ShardedFileTemplate(
        data_dir=epath.Path(out), dataset_name=schema.name, filetype_suffix="array_record"
    )
    infos = [
        tfds.core.SplitInfo(
            name=split,
            shard_lengths=list(shards),
            num_bytes=sum(
                file_size(out / shard_file(schema.name, split, i, len(shards)))
                for i in range(len(shards))
            ),
            filename_template=template.replace(split=split),
        )
        for split, shards in lengths.items()
    ]
    tfds.folder_dataset.write_metadata(
        data_dir=out,
        features=tfds_features(schema.image_size, schema.classes),
        split_infos=infos,
        filename_template=template,
        description=f"{schema.name}: images with metadata, prepared by satmip_jax",
        homepage=str(schema.provenance.get("homepage", "")),
        license=str(schema.provenance.get("license", "")),
        check_data=False,  # its check needs TensorFlow
    )
    schema.save(out / SCHEMA_FILE)
