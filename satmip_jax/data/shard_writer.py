"""Writing of shards and of the files that make a folder of them a TFDS data set."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from etils import epath

from satmip_jax.data.shard_format import SCHEMA_FILE, Record, encode, shard_file, tfds_features
from satmip_jax.metadata.schema import Schema
from satmip_jax.runtime.files import atomic_path

# One record per chunk is what random access wants. JPEGs do not compress: the default, zstd, takes
# 180 us longer to find that out than snappy does, which leaves 1 % more of the text around them.
_WRITER_OPTIONS = "group_size:1,snappy"


def write_shard(path: str | os.PathLike[str], records: Iterable[Record]) -> int:
    """Writes one shard; the file appears under its name only when it is whole.

    Args:
      path: Where it goes; on a local disk.
      records: Examples; consumed one at a time.

    Returns:
      How many records it holds.
    """
    from array_record.python.array_record_module import ArrayRecordWriter

    count = 0
    with atomic_path(path, durable=True) as temporary:
        writer = ArrayRecordWriter(str(temporary), _WRITER_OPTIONS)
        try:
            for record in records:
                writer.write(encode(record))
                count += 1
        finally:
            writer.close()
    return count


def finish(
    out: str | os.PathLike[str], schema: Schema, lengths: Mapping[str, Sequence[int]]
) -> None:
    """Writes `schema.json` and the TFDS metadata beside finished shards.

    Args:
      out: Folder of the shards.
      schema: Its `name` is that of the shard files.
      lengths: Split -> number of records of each of its shards, in order.
    """
    import tensorflow_datasets as tfds

    out = Path(out)
    template = tfds.core.ShardedFileTemplate(
        data_dir=epath.Path(out), dataset_name=schema.name, filetype_suffix="array_record"
    )
    infos = [
        tfds.core.SplitInfo(
            name=split,
            shard_lengths=list(shards),
            num_bytes=sum(
                (out / shard_file(schema.name, split, i, len(shards))).stat().st_size
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
