"""Batches for training and evaluation.

The order of samples is a pure function of (seed, number of examples, global batch size): a global
shuffle of record numbers, anew each epoch, cut into global batches, of which each process takes
its rows. So the position in the data is the step, a resume is a slice, and any number of worker
processes or hosts sees the same batches.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, SupportsIndex

import grain
import jax
import numpy as np
from absl import flags
from jax.sharding import Mesh
from tqdm import tqdm

from satmip_jax.data import images, shared_memory
from satmip_jax.data.bad_records import BadRecords, Found, stand_ins
from satmip_jax.data.resilient_iterator import PATIENCE, WatchedBatches, start_worker
from satmip_jax.data.shard_dataset import ShardDataset, ShardError
from satmip_jax.distributed.sharding import batch_sharding, is_main_process, replicated, to_devices
from satmip_jax.metadata import caption, tabular

Batch = dict[str, Any]
MAX_IN_MEMORY = 64 << 30  # bytes
SMALL = 1 << 20  # bytes: what is smaller comes from a worker by its pipe, without shared memory


@functools.lru_cache(maxsize=2)  # a batch may hold the end of one epoch and the start of the next
def _permutation(examples: int, seed: int, epoch: int) -> np.ndarray:
    """An epoch's order; numpy has frozen what `RandomState` draws (NEP 19)."""
    bits = np.random.MT19937(np.random.SeedSequence([seed, epoch]))
    return np.random.RandomState(bits).permutation(examples)


@dataclass(frozen=True)
class BatchOrder:
    """The record numbers of a process's rows of each global batch, a sequence as good as endless.

    Element i is the list of the `batch_size // processes` rows of step `start + i`. No example
    is left out: a batch may hold the end of one epoch and the beginning of the next.

    Example:
        >>> BatchOrder(examples=4, batch_size=3, seed=0)[1]
        [0, 1, 0]
    """

    examples: int
    batch_size: int
    seed: int
    start: int = 0
    process: int = 0
    processes: int = 1

    def __len__(self) -> int:
        return 2**52  # grain takes the length as a float, exact below 2^53

    def __getitem__(self, index: SupportsIndex) -> list[int]:
        rows = self.batch_size // self.processes
        first = (self.start + index.__index__()) * self.batch_size + self.process * rows
        numbers: list[int] = []
        while len(numbers) < rows:
            epoch, place = divmod(first + len(numbers), self.examples)
            order = _permutation(self.examples, self.seed, epoch)
            numbers += order[place : place + rows - len(numbers)].tolist()
        return numbers


def train_order(dataset: ShardDataset, *, batch_size: int, seed: int, start: int) -> BatchOrder:
    """This process's rows of each batch of a training on `dataset`, from step `start` on."""
    this = jax.process_index(), jax.process_count()
    return BatchOrder(len(dataset), batch_size, seed, start, *this)


@dataclass(frozen=True)
class ReadBatch:
    """Record numbers -> a batch: images decoded into one array, metadata as arrays.

    Returns, for n numbers and stored squares of side s: "image" uint8 (n, s, s, 3), "label" int32
    (n,), "index" int32 (n,), "metadata" (see `tabular.encode`) and, with `captions`, in it
    "caption" uint8 (n, fields, bytes). "index" differs from the number that was asked for where
    that record is bad and another stands in for it; "bad" lists the bad ones with their reasons.
    """

    dataset: ShardDataset
    schema: tabular.Schema  # whose vocabularies encode the metadata; a trained model's, say
    captions: bool = False
    lend: bool = False  # "image" is a `lent_memory.Lent`; in worker processes

    def __call__(self, numbers: Sequence[int]) -> Batch:
        side = self.dataset.schema.image_size
        shape = (len(numbers), side, side, 3)
        pixels, sent = shared_memory.lend(shape) if self.lend else (np.empty(shape, np.uint8), None)
        bad: Found = []
        tries = [(int(n), stand_ins(int(n), len(self.dataset))) for n in numbers]
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
        own = [reasons[candidate] for candidate in stand_ins(number, len(self.dataset))]
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


class TrainBatches:
    """Endless batches on the device, decoded by worker processes (or threads, with 0 workers).

    Example:
        >>> with TrainBatches(dataset, mesh, batch_size=256, seed=0) as batches:
        ...     batch = next(batches)
    """

    def __init__(
        self,
        dataset: ShardDataset,
        mesh: Mesh,
        *,
        batch_size: int,
        seed: int,
        start: int = 0,
        workers: int = 0,
        captions: bool = False,
        bad_records: BadRecords | None = None,
        patience: float = PATIENCE,
    ) -> None:
        self.mesh = mesh
        self._bad = BadRecords(dataset.split) if bad_records is None else bad_records
        threads = os.cpu_count() or 1
        read = grain.ReadOptions(num_threads=1 if workers else threads, prefetch_buffer_size=4)
        lend = workers > 0 and shared_memory.available()
        reader = ReadBatch(dataset, dataset.schema, captions, lend)

        def batches_from(position: int) -> Any:
            order = train_order(dataset, batch_size=batch_size, seed=seed, start=start + position)
            batches = grain.MapDataset.source(order).map(reader).to_iter_dataset(read)
            if not workers:
                return iter(batches)
            if not flags.FLAGS.is_parsed():  # grain's workers read absl flags
                flags.FLAGS.mark_as_parsed()
            few = grain.experimental.DatasetOptions(min_shm_size=SMALL)
            batches = grain.experimental.WithOptionsIterDataset(batches, few)
            options = grain.MultiprocessingOptions(num_workers=workers)
            batches = batches.mp_prefetch(options, worker_init_fn=start_worker)
            return iter(batches.map(shared_memory.Borrower()))

        self._iterator = (
            WatchedBatches(batches_from, patience=patience) if workers else batches_from(0)
        )

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        batch = next(self._iterator)
        self._bad.add(batch.pop("bad"))
        return to_devices(batch, self.mesh)

    def __enter__(self) -> TrainBatches:
        return self

    def __exit__(self, *_: object) -> None:
        self._iterator.close()


class InMemoryBatches:
    """The same batches from a data set that lies decoded on every device."""

    def __init__(
        self,
        dataset: ShardDataset,
        mesh: Mesh,
        *,
        batch_size: int,
        seed: int,
        start: int = 0,
        captions: bool = False,
        bad_records: BadRecords | None = None,
    ) -> None:
        self.mesh = mesh
        self._rows = train_order(dataset, batch_size=batch_size, seed=seed, start=start)
        self._step = 0
        # each process reads its part; the devices pass the parts around
        numbers = process_slice(range(len(dataset)), mesh)
        part = read_all(dataset, numbers, captions=captions, bad_records=bad_records)
        self._everything = jax.device_put(to_devices(part, mesh), replicated(mesh))
        self._take: Callable[[Batch, jax.Array], Batch] = jax.jit(
            lambda tree, index: jax.tree.map(lambda x: x[index], tree),
            out_shardings=batch_sharding(mesh),
        )

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        numbers = np.array(self._rows[self._step], np.int32)
        self._step += 1
        return self._take(self._everything, to_devices(numbers, self.mesh))

    def __enter__(self) -> InMemoryBatches:
        return self

    def __exit__(self, *_: object) -> None:
        del self._everything


def process_slice(numbers: Sequence[int], mesh: Mesh) -> list[int]:
    """This process's contiguous part of `numbers`, of equal length on all devices.

    What is missing at the end is filled with the first number, and so is to be cut off again.
    """
    rows = -(-len(numbers) // mesh.size) * mesh.size
    padded = [*numbers, *[numbers[0]] * (rows - len(numbers))]
    each = rows // jax.process_count()
    return padded[jax.process_index() * each :][:each]


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
