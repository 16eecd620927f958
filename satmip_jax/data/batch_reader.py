"""From record numbers to batches on the host: decoded images and metadata as arrays."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, SupportsIndex

import jax
import numpy as np
from tqdm import tqdm

from satmip_jax.data import images, shared_memory
from satmip_jax.data.bad_records import BadRecords, Reasons, replace_rows
from satmip_jax.data.sampler import BatchOrder
from satmip_jax.data.shard_dataset import ShardDataset
from satmip_jax.data.shard_format import ShardError
from satmip_jax.data.shared_memory import SharedArrayRef
from satmip_jax.distributed.multihost import is_main_process
from satmip_jax.errors import SatmipError
from satmip_jax.metadata import caption, tabular
from satmip_jax.metadata.record import Metadata
from satmip_jax.metadata.schema import Schema

Batch = dict[str, Any]

MAX_IN_MEMORY = 64 << 30  # bytes


class HostMemoryError(SatmipError, MemoryError):
    """The host has too little memory for a record, a batch or a split; the message says which."""


@dataclass(frozen=True)
class ReadBatch:
    """A function from record numbers to a batch. It is picklable, and safe to call in threads.

    Attributes:
        dataset: the split that it reads.
        schema: schema whose vocabularies encode the metadata, for example a trained model's.
        captions: include captions.
        share_memory: "image" is a `shared_memory.SharedArrayRef`; for worker processes.

    Example:
        >>> from satmip_jax.data.batch_reader import ReadBatch
        >>> from satmip_jax.data.shard_dataset import ShardDataset
        >>> dataset = ShardDataset(shards, "train")
        >>> batch = ReadBatch(dataset, dataset.schema)([5, 0])
        >>> batch["image"].shape, batch["image"].dtype, batch["index"].tolist()
        ((2, 32, 32, 3), dtype('uint8'), [5, 0])
    """

    dataset: ShardDataset
    schema: Schema
    captions: bool = False
    share_memory: bool = False

    def __call__(
        self,
        numbers: Sequence[int],
        replacements: Callable[[int], Iterable[int]] | None = None,
    ) -> Batch:
        """Read n records, stored as squares of side s.

        Args:
            numbers: record numbers.
            replacements: position in `numbers` -> records to try if that one cannot be read. By
                default its row stays black and has no label and no metadata.

        Returns:
            "image" uint8 (n, s, s, 3), "label" int32 (n,), -1 for none, "index" int32 (n,),
            "metadata" (see `tabular.encode`), which includes "caption" uint8 (n, fields, bytes) if
            asked for, "valid" bool (n,), False where the record cannot be read, and "bad", the bad
            records with their reasons. "index" has the numbers of replacements in their rows.

        Raises:
            ShardError: a record and all its replacements cannot be read.
            HostMemoryError: the memory does not suffice for a record.
        """
        side = self.dataset.schema.image_size
        shape = (len(numbers), side, side, 3)
        reference: SharedArrayRef | None = None
        if self.share_memory:
            pixels, reference = shared_memory.allocate(shape)
        else:
            pixels = np.empty(shape, np.uint8)
        bad: Reasons = []
        # first all records, then all pixels: taking turns makes both 10 % slower
        examples = [self._read(int(number), bad) for number in numbers]
        valid = np.array(
            [self._decode(example, pixels[row], bad) for row, example in enumerate(examples)], bool
        )
        invalid = np.flatnonzero(~valid).tolist()

        def usable(row: int, candidate: int) -> bool:
            examples[row] = self._read(candidate, bad)
            return self._decode(examples[row], pixels[row], bad)

        chosen = replace_rows(invalid, replacements, usable) if replacements else {}
        for row in invalid:
            if row in chosen:
                continue
            if replacements:
                raise no_replacement(self.dataset, int(numbers[row]), bad)
            pixels[row] = 0
            examples[row] = {"index": numbers[row], "label": -1, "metadata": Metadata({})}
        records = [example["metadata"] for example in examples]
        metadata = tabular.encode(records, self.schema)
        if self.captions:
            metadata["caption"] = caption.fragments(records)
        return {
            "image": reference or pixels,
            "label": np.array([example["label"] for example in examples], np.int32),
            "index": np.array([example["index"] for example in examples], np.int32),
            "metadata": metadata,
            "valid": valid,
            "bad": bad,
        }

    def _read(self, number: int, bad: Reasons) -> dict[str, Any]:
        """Return a record, or nothing and note why."""
        try:
            return self.dataset[number]
        except ShardError as error:
            bad.append((number, str(error)))
            return {}
        except MemoryError as error:  # of the machine: no other record would replace it
            raise self._too_little_memory("to read", number, error) from error

    def _decode(self, example: dict[str, Any], out: np.ndarray, bad: Reasons) -> bool:
        """Decode the image of a record into `out`; return whether there is one, or note why not."""
        if not example:
            return False
        data = example.pop("image")
        try:
            images.decode_square(data, len(out), out=out)
        except MemoryError as error:
            doing = f"to decode {len(out)}x{len(out)} pixels from the {len(data):,} bytes of"
            raise self._too_little_memory(doing, example["index"], error) from error
        except images.ImageError as error:
            bad.append((example["index"], f"{self.dataset.data_dir}, {example['id']}: {error}"))
            return False
        return True

    def _too_little_memory(self, doing: str, number: int, error: MemoryError) -> HostMemoryError:
        reason = f" ({error})" if str(error) else ""
        return HostMemoryError(
            f"too little memory {doing} {self.dataset.where(number)}{reason}: use fewer worker "
            "processes (config.data.workers), or a smaller batch (config.optimizer.batch_size)"
        )


@dataclass(frozen=True)
class ReadTrainBatch:
    """A function from an element of `order` to its batch; bad records are replaced.

    Attributes:
        reader: reads the records.
        order: numbers of the records, and of their replacements.
    """

    reader: ReadBatch
    order: BatchOrder

    def __call__(self, index: SupportsIndex) -> Batch:
        """Read this process's rows of a step; see `ReadBatch`, without "valid".

        Raises:
            ShardError: a record and all its replacements cannot be read.
        """
        batch = self.reader(self.order[index], partial(self.order.replacements, index))
        del batch["valid"]  # all are
        return batch


def no_replacement(dataset: ShardDataset, number: int, bad: Reasons) -> ShardError:
    """Return the error for a bad record that no other can replace.

    Args:
        dataset: the split.
        number: of the record.
        bad: the bad records of the batch with their reasons.
    """
    reasons = dict(bad)
    listed = [f"{n}: {reasons[n]}" for n in sorted(reasons, key=lambda n: n != number)]
    return ShardError(
        f"{dataset.data_dir}: {dataset.split} record {number} cannot be read, and there is no "
        "record outside its batch that can replace it. Prepare the data again, or use a smaller "
        f"batch: config.optimizer.batch_size of at most half of the {len(dataset)} examples\n  "
        + "\n  ".join(listed[:5])
        + ("\n  ..." if len(listed) > 5 else "")
    )


def read_all(
    dataset: ShardDataset,
    numbers: Sequence[int] | None = None,
    *,
    captions: bool = False,
    bad_records: BadRecords | None = None,
) -> Batch:
    """Read a split, or the records `numbers` of it, into host memory.

    Args:
        dataset: the split.
        numbers: record numbers, in the order of the result; by default all.
        captions: include captions.
        bad_records: counts the records that cannot be read; their rows are not "valid".

    Returns:
        One batch of all records, see `ReadBatch`, without "bad".

    Raises:
        HostMemoryError: the decoded images would take more than 64 GiB.
        BadRecordsError: too many records cannot be read.
    """
    size = len(dataset) * dataset.schema.image_size**2 * 3
    if size > MAX_IN_MEMORY:
        raise HostMemoryError(
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
    """Yield batches of the records `numbers`, in that order; the last one may be smaller.

    Args:
        reader: reads the records.
        numbers: record numbers.
        size: records per batch.
        bad_records: counts the records that cannot be read; their rows are not "valid".
    """
    bad_records = BadRecords(reader.dataset.split) if bad_records is None else bad_records
    with tqdm(
        total=len(numbers),
        desc=f"reading {reader.dataset.split}",
        unit=" images",
        leave=False,
        mininterval=1.0,
        disable=not is_main_process(),
    ) as bar:
        for batch in _read_ahead(reader, numbers, size):
            bad_records.add(batch.pop("bad"))
            yield batch
            bar.update(len(batch["index"]))


def _read_ahead(reader: ReadBatch, numbers: Sequence[int], size: int) -> Iterator[Batch]:
    """Yield the batches in order; threads read the next ones, at most twice their number."""
    threads = os.cpu_count() or 1
    started: deque[Future[Batch]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for start in range(0, len(numbers), size):
                started.append(pool.submit(reader, list(numbers[start : start + size])))
                if len(started) > 2 * threads:
                    yield started.popleft().result()
            while started:
                yield started.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
