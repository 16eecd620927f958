"""Record numbers to batches: records read, images decoded, metadata as arrays."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import grain
import jax
import numpy as np
from tqdm import tqdm

from satmip_jax.data import images, shared_memory
from satmip_jax.data.bad_records import BadRecords, Found, replacements
from satmip_jax.data.shard_dataset import ShardDataset
from satmip_jax.data.shard_format import ShardError
from satmip_jax.distributed.multihost import is_main_process
from satmip_jax.metadata import caption, tabular
from satmip_jax.metadata.schema import Schema

Batch = dict[str, Any]


MAX_IN_MEMORY = 64 << 30  # bytes


@dataclass(frozen=True)
class ReadBatch:
    """Record numbers -> a batch: images decoded into one array, metadata as arrays.

    Returns, for n numbers and stored squares of side s: "image" uint8 (n, s, s, 3), "label" int32
    (n,), "index" int32 (n,), "metadata" (see `tabular.encode`) and, with `captions`, in it
    "caption" uint8 (n, fields, bytes). "index" differs from the number that was asked for where
    that record is bad and another stands in for it; "bad" lists the bad ones with their reasons.
    """

    dataset: ShardDataset
    schema: Schema  # whose vocabularies encode the metadata; a trained model's, say
    captions: bool = False
    lend: bool = False  # "image" is a `lent_memory.SharedArrayRef`; in worker processes

    def __call__(self, numbers: Sequence[int]) -> Batch:
        side = self.dataset.schema.image_size
        shape = (len(numbers), side, side, 3)
        pixels, sent = shared_memory.lend(shape) if self.lend else (np.empty(shape, np.uint8), None)
        bad: Found = []
        tries = [(int(n), replacements(int(n), len(self.dataset))) for n in numbers]
        # All records, then all pixels: taking turns, both run a tenth slower.
        examples = [self._read(*those, bad) for those in tries]
        for row, those in enumerate(tries):
            examples[row] = self._decode(examples[row], pixels[row], *those, bad)
        records = [example["metadata"] for example in examples]
        metadata = tabular.encode(records, self.schema)
        if self.captions:
            metadata["caption"] = caption.fragments(records)
        return {
            "image": sent or pixels,
            "label": np.array([example["label"] for example in examples], np.int32),
            "index": np.array([example["index"] for example in examples], np.int32),
            "metadata": metadata,
            "bad": bad,
        }

    def _read(self, number: int, candidates: Iterator[int], bad: Found) -> dict[str, Any]:
        """The first of `candidates`, which are record `number` and its stand-ins, that reads."""
        for candidate in candidates:
            try:
                return self.dataset[candidate]
            except ShardError as error:
                bad.append((candidate, str(error)))
        reasons = dict(bad)
        own = [reasons[candidate] for candidate in replacements(number, len(self.dataset))]
        raise ShardError(
            f"{self.dataset.data_dir}: {self.dataset.split} record {number} cannot be read, nor "
            "can those to stand in for it:\n  " + "\n  ".join(own[:5]) + "\n  ..."
        )

    def _decode(
        self,
        example: dict[str, Any],
        out: np.ndarray,
        number: int,
        candidates: Iterator[int],
        bad: Found,
    ) -> dict[str, Any]:
        """The example, or the next of `candidates`, whose image can be decoded into `out`."""
        while True:
            try:
                images.decode_square(example.pop("image"), len(out), out=out)
            except images.ImageError as error:
                where = f"{self.dataset.data_dir}, {example['id']}"
                bad.append((example["index"], f"{where}: {error}"))
                example = self._read(number, candidates, bad)
            else:
                return example


def read_all(
    dataset: ShardDataset,
    numbers: Sequence[int] | None = None,
    *,
    captions: bool = False,
    bad_records: BadRecords | None = None,
) -> Batch:
    """Read a split into host memory: the records `numbers`, or all in their order.

    Where a record is bad another stands in for it, as "index" shows.

    Raises:
        MemoryError: the decoded images would take more than 64 GiB.
    """
    size = len(dataset) * dataset.schema.image_size**2 * 3
    if size > MAX_IN_MEMORY:
        raise MemoryError(
            f"{len(dataset):,} images of {dataset.schema.image_size} px take {size / 2**30:.0f} "
            "GiB decoded: set config.data.in_memory=False to stream them"
        )
    reader = ReadBatch(dataset, dataset.schema, captions)
    numbers = range(len(dataset)) if numbers is None else numbers
    parts = read_in_order(reader, numbers, size=256, bad_records=bad_records)
    return jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)


def read_in_order(
    reader: ReadBatch, numbers: Sequence[int], *, size: int, bad_records: BadRecords | None = None
) -> Iterator[Batch]:
    """Yield batches of the records `numbers`, in that order; the last one may be smaller."""
    bad_records = BadRecords(reader.dataset.split) if bad_records is None else bad_records
    threads = os.cpu_count() or 1
    batches = grain.MapDataset.source(numbers).batch(size, batch_fn=list).map(reader)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    with tqdm(
        total=len(numbers),
        desc=f"reading {reader.dataset.split}",
        unit=" images",
        leave=False,
        mininterval=1.0,
        disable=not is_main_process(),
    ) as bar:
        for batch in batches.to_iter_dataset(options):
            bad_records.add(batch.pop("bad"))
            yield batch
            bar.update(len(batch["index"]))
