"""Batches for training and evaluation.

The order of samples is a pure function of (seed, number of examples, global batch size): a global
shuffle of record numbers, anew each epoch, cut into global batches, of which each process takes
its rows. So the position in the data is the step, a resume is a slice, and any number of worker
processes or hosts sees the same batches.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import grain
import jax
import numpy as np
from absl import flags
from jax.sharding import Mesh
from tqdm import tqdm

from satmip_jax import images, parallel
from satmip_jax.metadata import caption, tabular
from satmip_jax.shards import ShardDataset, ShardError

Batch = dict[str, Any]
MAX_IN_MEMORY = 64 << 30  # bytes


def index_batches(
    examples: int,
    *,
    batch_size: int,
    seed: int,
    start: int,
    process: int | None = None,
    processes: int | None = None,
) -> grain.MapDataset:
    """Record numbers of a process's rows of each global batch, from step `start` on.

    The process is this one, unless `process` of `processes` says otherwise.
    Element i is the list of the `batch_size // processes` rows of step `start + i`. No example
    is left out: a batch may hold the end of one epoch and the beginning of the next.
    """
    process = jax.process_index() if process is None else process
    processes = jax.process_count() if processes is None else processes
    # As good as endless; grain takes the length as a float, exact below 2^53.
    epochs = max(1, 2**52 // examples)
    order = grain.MapDataset.range(examples).seed(seed).shuffle().repeat(epochs)
    rows = order.batch(batch_size // processes, batch_fn=list)
    return rows[process::processes][start:]


@dataclass(frozen=True)
class ReadBatch:
    """Record numbers -> a batch: images decoded into one array, metadata as arrays.

    Returns, for n numbers and stored squares of side s: "image" uint8 (n, s, s, 3), "label" int32
    (n,), "index" int32 (n,), "metadata" (see `tabular.encode`) and, with `captions`, in it
    "caption" uint8 (n, fields, bytes).
    """

    dataset: ShardDataset
    schema: tabular.Schema  # whose vocabularies encode the metadata; a trained model's, say
    captions: bool = False

    def __call__(self, numbers: Sequence[int]) -> Batch:
        side = self.dataset.schema.image_size
        pixels = np.empty((len(numbers), side, side, 3), np.uint8)
        examples = [self.dataset[int(number)] for number in numbers]
        for row, example in enumerate(examples):
            try:
                images.decode_square(example["image"], side, out=pixels[row])
            except images.ImageError as error:
                raise ShardError(
                    f"{self.dataset.data_dir}, {self.dataset.split} record {numbers[row]} "
                    f"({example['id']}): {error}"
                ) from error
        records = [example["metadata"] for example in examples]
        metadata = tabular.encode(records, self.schema)
        if self.captions:
            metadata["caption"] = caption.fragments(records)
        return {
            "image": pixels,
            "label": np.array([example["label"] for example in examples], np.int32),
            "index": np.array(numbers, np.int32),
            "metadata": metadata,
        }


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
    ) -> None:
        self.mesh = mesh
        rows = index_batches(len(dataset), batch_size=batch_size, seed=seed, start=start)
        threads = os.cpu_count() or 1
        read = grain.ReadOptions(num_threads=1 if workers else threads, prefetch_buffer_size=4)
        batches = rows.map(ReadBatch(dataset, dataset.schema, captions)).to_iter_dataset(read)
        if workers:
            if not flags.FLAGS.is_parsed():  # grain's workers read absl flags
                flags.FLAGS.mark_as_parsed()
            options = grain.MultiprocessingOptions(num_workers=workers)
            batches = batches.mp_prefetch(options, worker_init_fn=_leave_ctrl_c_to_the_trainer)
        self._iterator = iter(batches)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        return parallel.to_devices(next(self._iterator), self.mesh)

    def __enter__(self) -> TrainBatches:
        return self

    def __exit__(self, *_: object) -> None:
        self._iterator.close()


def _leave_ctrl_c_to_the_trainer(worker: int, workers: int) -> None:
    """A terminal sends Ctrl-C to all processes; the trainer saves, then ends its workers."""
    del worker, workers
    signal.signal(signal.SIGINT, signal.SIG_IGN)


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
    ) -> None:
        self.mesh = mesh
        self._rows = index_batches(len(dataset), batch_size=batch_size, seed=seed, start=start)
        self._step = 0
        # each process reads its part; the devices pass the parts around
        numbers = process_slice(range(len(dataset)), mesh)
        part = parallel.to_devices(read_all(dataset, numbers, captions=captions), mesh)
        self._everything = jax.device_put(part, parallel.replicated(mesh))
        self._take: Callable[[Batch, jax.Array], Batch] = jax.jit(
            lambda tree, index: jax.tree.map(lambda x: x[index], tree),
            out_shardings=parallel.batch_sharding(mesh),
        )

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        numbers = np.array(self._rows[self._step], np.int32)
        self._step += 1
        return self._take(self._everything, parallel.to_devices(numbers, self.mesh))

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
    dataset: ShardDataset, numbers: Sequence[int] | None = None, *, captions: bool = False
) -> Batch:
    """Read a split into host memory: the records `numbers`, or all in their order.

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
    parts = read_in_order(reader, numbers, size=256)
    return jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)


def read_in_order(reader: ReadBatch, numbers: Sequence[int], *, size: int) -> Iterator[Batch]:
    """Yield batches of the records `numbers`, in that order; the last one may be smaller."""
    threads = os.cpu_count() or 1
    batches = grain.MapDataset.source(numbers).batch(size, batch_fn=list).map(reader)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    with tqdm(
        total=len(numbers),
        desc=f"reading {reader.dataset.split}",
        unit=" images",
        leave=False,
        mininterval=1.0,
        disable=not parallel.is_main_process(),
    ) as bar:
        for batch in batches.to_iter_dataset(options):
            yield batch
            bar.update(len(batch["index"]))
