"""Throughput from shards to the device: this package's loader, decoding only, PyTorch's loaders.

Each turn opens a loader, discards the batches it has prefetched, times a fixed number of batches,
and closes it, so no other loader works in the background. The start of worker processes is reported
separately.

The throughput per core is images per second of CPU time, of the workers and of this process. Other
load on the machine hardly changes it.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
from tqdm import tqdm

from satmip_jax.bench import torch_loader
from satmip_jax.bench.timing import Measurement, over_rounds
from satmip_jax.data import images
from satmip_jax.data.loaders import TrainBatches
from satmip_jax.data.sampler import BatchOrder
from satmip_jax.data.shard_dataset import ShardDataset
from satmip_jax.distributed.sharding import make_mesh, to_devices

SHARED_MEMORY = Path("/dev/shm")
PREFETCH, TORCH_PREFETCH = 8, 3  # upper bounds on prefetched batches per worker
REFERENCE = "decoding only"
CLOSING = 5.0  # seconds for worker processes and shared memory to go away


class Loader(NamedTuple):
    """A loader of batches.

    Attributes:
        open: returns a context with an iterator of batches, enough for a turn.
        prefetch: number of batches that may be prefetched.
    """

    open: Callable[[], AbstractContextManager[Iterator[Any]]]
    prefetch: int


@dataclass(frozen=True)
class Job:
    """The work of each loader.

    Attributes:
        dataset: the records.
        batch_size: images per batch.
        batches: timed batches per turn.
        workers: number of worker processes.
        view: side of views made on the host, pixels.
    """

    dataset: ShardDataset
    batch_size: int
    batches: int
    workers: int
    view: int


@dataclass(frozen=True)
class Turn:
    """Measurements of one turn of a loader; the metrics have the same names, with spaces.

    Attributes:
        throughput: images per second.
        throughput_per_core: images per second of CPU time.
        time_to_first_batch: seconds, including the start of worker processes.
        worker_memory: memory of the workers, MiB, shared pages counted once; None if unknown.
        worker_memory_with_shared: the same, shared pages counted for each worker.
        leaked_processes: worker processes that are left after the loader was closed.
        leaked_shared_memory: shared-memory files that are left.
    """

    throughput: float
    throughput_per_core: float
    time_to_first_batch: float
    worker_memory: float | None
    worker_memory_with_shared: float | None
    leaked_processes: int
    leaked_shared_memory: int


UNITS = {
    "throughput": "images/s",
    "throughput_per_core": "images/s",
    "time_to_first_batch": "s",
    "worker_memory": "MiB",
    "worker_memory_with_shared": "MiB",
    "leaked_processes": "",
    "leaked_shared_memory": "",
}


def bench(job: Job, rounds: int) -> list[Measurement]:
    """Measure all loaders in turn; PyTorch's only if it is installed.

    Args:
        job: the work.
        rounds: turns per loader.
    """
    turns: dict[str, list[Turn]] = {name: [] for name in loaders(job)}
    order = [name for _ in range(rounds) for name in turns]
    for name in tqdm(order, desc="timing", unit=" turns", leave=False):
        turns[name].append(_turn(loaders(job)[name], job))
    facts = {
        "workers": job.workers,
        "batch": job.batch_size,
        "size": job.dataset.schema.image_size,
        "JPEG KiB": round(_jpeg_bytes(job.dataset) / 1024, 1),
    }
    measurements = []
    for name, measured in turns.items():
        for field in fields(Turn):
            values = [getattr(turn, field.name) for turn in measured]
            if None not in values:
                metric, unit = field.name.replace("_", " "), UNITS[field.name]
                summary = over_rounds(values)
                measurements.append(
                    Measurement("pipeline", name, metric, unit=unit, facts=facts, **summary)
                )
        for field_name in ("throughput", "throughput_per_core"):
            pairs = zip(measured, turns[REFERENCE], strict=True)  # by round, close in time
            shares = [100 * getattr(a, field_name) / getattr(b, field_name) for a, b in pairs]
            metric = f"{field_name.replace('_', ' ')} / {REFERENCE}"
            measurements.append(
                Measurement("pipeline", name, metric, unit="%", facts=facts, **over_rounds(shares))
            )
    return measurements


def loaders(job: Job) -> Mapping[str, Loader]:
    """Return the loaders to compare, by name."""
    prefetch = PREFETCH * job.workers
    by_name = {
        REFERENCE: Loader(partial(_decoding_only, job), 2 * job.workers),
        "satmip, threads": Loader(partial(_ours, job, 0), prefetch),
        "satmip, processes": Loader(partial(_ours, job, job.workers), prefetch),
    }
    if torch_loader.installed():
        prefetch = TORCH_PREFETCH * job.workers
        records = torch_loader.Records(job.dataset)
        views = torch_loader.TwoViews(job.dataset, job.view)
        by_name["DataLoader, same decoder"] = Loader(partial(_torch, job, records), prefetch)
        by_name["DataLoader, PIL, two views"] = Loader(partial(_torch, job, views), prefetch)
    return by_name


@contextmanager
def _ours(job: Job, workers: int) -> Iterator[Iterator[Any]]:
    mesh = make_mesh()
    with TrainBatches(
        job.dataset, mesh, batch_size=job.batch_size, seed=0, workers=workers
    ) as batches:
        yield batches


@contextmanager
def _torch(job: Job, data: Any) -> Iterator[Iterator[Any]]:
    mesh = make_mesh()
    order = BatchOrder(len(job.dataset), job.batch_size, seed=0)
    # one long epoch, because the workers of a DataLoader pause after an epoch
    numbers = [order[i] for i in range(1 + TORCH_PREFETCH * job.workers + job.batches)]
    with torch_loader.loader(data, numbers, job.workers) as batches:
        yield (to_devices(batch, mesh) for batch in batches)


@contextmanager
def _decoding_only(job: Job) -> Iterator[Iterator[Any]]:
    """Decode in worker processes without a transfer of pixels; yield the numbers of images."""
    numbers = range(min(len(job.dataset), 512))
    files = [job.dataset[number]["image"] for number in numbers]
    context = multiprocessing.get_context("spawn")
    side = job.dataset.schema.image_size
    with ProcessPoolExecutor(job.workers, context, _start_decoding, (files, side)) as pool:

        def counts() -> Iterator[dict[str, int]]:
            starts = iter(range(0, 2**62, job.batch_size))
            running = deque(
                pool.submit(decode_files, next(starts), job.batch_size)
                for _ in range(2 * job.workers)
            )
            while True:
                running.append(pool.submit(decode_files, next(starts), job.batch_size))
                yield {"images": running.popleft().result()}

        yield counts()
        pool.shutdown(cancel_futures=True)


_files: list[bytes]
_side: int


def _start_decoding(files: list[bytes], side: int) -> None:
    global _files, _side
    _files, _side = files, side
    images.use_one_thread()


def decode_files(start: int, count: int) -> int:
    """Decode files in a worker process, starting over after the last one.

    Args:
        start: number of the first file.
        count: number of files to decode.

    Returns:
        `count`.
    """
    for number in range(start, start + count):
        images.decode_square(_files[number % len(_files)], _side)
    return count


def _turn(loader: Loader, job: Job) -> Turn:
    others, shared_before = set(multiprocessing.active_children()), _shared_memory()
    start = time.perf_counter()
    with loader.open() as batches:
        jax.block_until_ready(next(batches))
        first_batch = time.perf_counter() - start
        for _ in range(loader.prefetch):
            jax.block_until_ready(next(batches))
        workers = [p.pid for p in set(multiprocessing.active_children()) - others if p.pid]
        cpu, start = _cpu_seconds(workers), time.perf_counter()
        delivered = 0
        for _ in range(job.batches):
            batch = jax.block_until_ready(next(batches))
            delivered += batch["images"] if "images" in batch else len(batch["image"])
        seconds = time.perf_counter() - start
        cpu = _cpu_seconds(workers) - cpu
        proportional, resident = _memory(workers, "Pss"), _memory(workers, "Rss")
        del batch, batches
    end = time.monotonic() + CLOSING  # other threads may still close some
    while True:
        leaked_processes = len(set(multiprocessing.active_children()) - others)
        leaked_files = len(_shared_memory() - shared_before)
        if not (leaked_processes or leaked_files) or time.monotonic() > end:
            break
        time.sleep(0.05)
    return Turn(
        throughput=delivered / seconds,
        throughput_per_core=delivered / max(cpu, 1e-9),
        time_to_first_batch=first_batch,
        worker_memory=proportional,
        worker_memory_with_shared=resident,
        leaked_processes=leaked_processes,
        leaked_shared_memory=leaked_files,
    )


def _jpeg_bytes(dataset: ShardDataset) -> float:
    """Return the mean size of the first files."""
    numbers = range(min(len(dataset), 64))
    return sum(len(dataset[number]["image"]) for number in numbers) / len(numbers)


# --- /proc and /dev/shm ---------------------------------------------------------------------------


def _shared_memory() -> set[str]:
    return set(os.listdir(SHARED_MEMORY)) if SHARED_MEMORY.is_dir() else set()


def _cpu_seconds(workers: list[int]) -> float:
    """Return the CPU time of this process and of the workers, as far as the system reports it."""
    ticks = 0
    for pid in workers:
        stat = Path(f"/proc/{pid}/stat")
        if stat.exists():
            user, system = stat.read_text().rpartition(")")[2].split()[11:13]
            ticks += int(user) + int(system)
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def _memory(workers: list[int], kind: str) -> float | None:
    """Return the memory of all workers, MiB; "Pss" divides shared pages, "Rss" does not."""
    if not workers:
        return None
    total = 0
    for pid in workers:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            return None
        total += sum(int(line.split()[1]) for line in lines if line.startswith(f"{kind}:"))
    return total / 1024
