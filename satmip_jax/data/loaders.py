"""Batches on the devices, for training.

All loaders yield the same batches: their order is a pure function of the seed, the number of
examples and the batch size (see `sampler`), whatever the number of worker processes or hosts.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from satmip_jax.data import shared_memory
from satmip_jax.data.bad_records import BadRecords, replace_rows
from satmip_jax.data.batch_reader import (
    Batch,
    ReadBatch,
    ReadTrainBatch,
    no_replacement,
    read_all,
)
from satmip_jax.data.resilient_iterator import (
    PATIENCE,
    CatchErrors,
    ResilientIterator,
    TaskError,
    start_worker,
)
from satmip_jax.data.sampler import pad, train_order
from satmip_jax.data.shard_dataset import ShardDataset
from satmip_jax.distributed.sharding import (
    batch_sharding,
    process_rows,
    replicated,
    to_devices,
)
from satmip_jax.runtime.console import ALL_PROCESSES

log = logging.getLogger(__name__)

MIN_SHARED_BYTES = 1 << 20  # grain sends smaller arrays of workers through pipes


class TrainBatches:
    """An infinite iterator of batches on the devices, decoded by worker processes or threads.

    Batches are those of `ReadTrainBatch` without "bad", sharded over all devices.

    Args:
        dataset: split to train on.
        mesh: devices.
        batch_size: global batch size.
        seed: of the order of samples.
        start: step of the first batch.
        workers: worker processes; 0 decodes in threads of this process.
        captions: include captions, for text encoders.
        bad_records: counts the records that cannot be read.
        patience: seconds without a batch after which worker processes count as hanging.

    Raises:
        BadRecordsError: in `next`, if too many records cannot be read.
        ShardError: in `next`, if a record and all its replacements cannot be read.
        WorkersError: in `next`, if the worker processes died or hung again and again.

    Example:
        >>> from satmip_jax.data.loaders import TrainBatches
        >>> from satmip_jax.data.shard_dataset import ShardDataset
        >>> from satmip_jax.distributed.sharding import make_mesh
        >>> dataset = ShardDataset(shards, "train")
        >>> with TrainBatches(dataset, make_mesh(), batch_size=16, seed=0) as batches:
        ...     batch = next(batches)
        >>> batch["image"].shape
        (16, 32, 32, 3)
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
        import grain  # lazily: training in device memory does without
        from absl import flags

        self.mesh = mesh
        self._bad_records = BadRecords(dataset.split) if bad_records is None else bad_records
        self._share_memory = workers > 0 and shared_memory.available()
        threads = 1 if workers else os.cpu_count() or 1
        read_options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=4)

        def batches_from(position: int) -> Any:
            first = start + position
            order = train_order(dataset, mesh, batch_size=batch_size, seed=seed, start=first)
            source = grain.MapDataset.range(len(order))
            records = ReadBatch(dataset, dataset.schema, captions, self._share_memory)
            reader = ReadTrainBatch(records, order)
            if not workers:
                return iter(source.map(reader).to_iter_dataset(read_options))
            batches = source.map(CatchErrors(reader)).to_iter_dataset(read_options)
            if not flags.FLAGS.is_parsed():  # grain's workers read absl flags
                flags.FLAGS.mark_as_parsed()
            transfer = grain.experimental.DatasetOptions(min_shm_size=MIN_SHARED_BYTES)
            batches = grain.experimental.WithOptionsIterDataset(batches, transfer)
            processes = grain.MultiprocessingOptions(num_workers=workers)
            batches = batches.mp_prefetch(processes, worker_init_fn=start_worker)
            return iter(batches.map(_Receive()))

        self._workers = ResilientIterator(batches_from, patience=patience) if workers else None
        self._iterator = self._workers or batches_from(0)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        try:
            batch = next(self._iterator)
        except shared_memory.SharedMemoryForbiddenError as error:
            assert self._workers is not None
            log.warning(
                f"{error}; worker processes send pixels through pipes instead, which is slower",
                extra=ALL_PROCESSES,
            )
            self._share_memory = False
            self._workers.restart()
            batch = next(self._iterator)
        self._bad_records.add(batch.pop("bad"))
        return to_devices(batch, self.mesh)

    def __enter__(self) -> TrainBatches:
        return self

    def __exit__(self, *_: object) -> None:
        self._iterator.close()


class _Receive:
    """Opens shared arrays of batches; passes errors of workers on."""

    def __init__(self) -> None:
        self._receive = shared_memory.SharedArrayReceiver()

    def __call__(self, element: Batch | TaskError) -> Batch | TaskError:
        return element if isinstance(element, TaskError) else self._receive(element)


class InMemoryBatches:
    """An infinite iterator of the same batches, from a split that every device holds decoded.

    Arguments are those of `TrainBatches`.

    Raises:
        HostMemoryError: the decoded images take more than 64 GiB.
        BadRecordsError: too many records cannot be read.
        ShardError: in `next`, if a record and all its replacements cannot be read.
    """

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
        self._dataset = dataset
        self._order = train_order(dataset, mesh, batch_size=batch_size, seed=seed, start=start)
        self._step = 0
        # each process reads a part; the devices exchange the parts
        numbers = pad(np.arange(len(dataset)), mesh.size)
        part = read_all(
            dataset,
            numbers[process_rows(mesh, len(numbers))].tolist(),
            captions=captions,
            bad_records=bad_records,
        )
        self._split = jax.device_put(to_devices(part, mesh), replicated(mesh))
        valid = jax.device_get(self._split.pop("valid"))[: len(dataset)]
        self._bad = frozenset(np.flatnonzero(~valid).tolist())
        self._take: Callable[[Batch, jax.Array], Batch] = jax.jit(
            lambda split, numbers: jax.tree.map(lambda x: x[numbers], split),
            out_shardings=batch_sharding(mesh),
        )

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        step, numbers = self._step, self._order[self._step]
        self._step += 1
        if self._bad and not self._bad.isdisjoint(numbers):
            self._replace(step, numbers)
        return self._take(self._split, to_devices(np.array(numbers, np.int32), self.mesh))

    def _replace(self, step: int, numbers: list[int]) -> None:
        """Put other records in place of bad ones, those that `ReadTrainBatch` takes."""
        rows = [row for row, number in enumerate(numbers) if number in self._bad]
        chosen = replace_rows(
            rows,
            lambda row: self._order.replacements(step, row),
            lambda _, candidate: candidate not in self._bad,
        )
        for row in rows:
            if row not in chosen:
                raise no_replacement(self._dataset, numbers[row], [])
            numbers[row] = chosen[row]

    def __enter__(self) -> InMemoryBatches:
        return self

    def __exit__(self, *_: object) -> None:
        del self._split
