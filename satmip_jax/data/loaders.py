"""Batches for training and evaluation.

The order of samples is a pure function of (seed, number of examples, global batch size): a global
shuffle of record numbers, anew each epoch, cut into global batches, of which each process takes
its rows. So the position in the data is the step, a resume is a slice, and any number of worker
processes or hosts sees the same batches.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import grain
import jax
import numpy as np
from absl import flags
from jax.sharding import Mesh

from satmip_jax.data import shared_memory
from satmip_jax.data.bad_records import BadRecords
from satmip_jax.data.batch_reader import Batch, ReadBatch, read_all
from satmip_jax.data.resilient_iterator import PATIENCE, ResilientIterator, start_worker
from satmip_jax.data.sampler import process_slice, train_order
from satmip_jax.data.shard_dataset import ShardDataset
from satmip_jax.distributed.sharding import batch_sharding, replicated, to_devices

SMALL = 1 << 20  # bytes: what is smaller comes from a worker by its pipe, without shared memory


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
            return iter(batches.map(shared_memory.SharedArrayReceiver()))

        self._iterator = (
            ResilientIterator(batches_from, patience=patience) if workers else batches_from(0)
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
