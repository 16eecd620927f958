"""Images from shards to the device: this project's loader, decoding alone, and PyTorch's loaders.

Every turn opens a loader, lets it deliver enough to empty what it had fetched ahead, times a fixed
number of batches, and closes it; so nothing works in the background while another is timed. The
start of worker processes is reported apart.

The rate of a core is images per second of CPU time, of the workers and of this process: what else
the machine does hardly changes it.
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
from satmip_jax.bench.timing import Measurement, spread
from satmip_jax.data import images
from satmip_jax.data.loaders import TrainBatches
from satmip_jax.data.sampler import BatchOrder
from satmip_jax.data.shard_dataset import ShardDataset
from satmip_jax.distributed.sharding import make_mesh, to_devices

SHARED_MEMORY = Path("/dev/shm")
AHEAD, TORCH_AHEAD = 8, 3  # batches that a worker may hold ready: at least so many, of theirs
BARE = "decoding alone"
CLOSING = 5.0  # seconds for what a loader leaves to go away


class Loader(NamedTuple):
    """A context in which batches come, without end or for longer than a turn lasts.

    Attributes:
        open: returns the context.
        ahead: batches that it may have fetched ahead.
    """

    open: Callable[[], AbstractContextManager[Iterator[Any]]]
    ahead: int


@dataclass(frozen=True)
class Job:
    """What is loaded.

    Attributes:
        dataset: the records.
        batch_size: images of a batch.
        batches: timed in a turn.
        workers: processes.
        view: side of the views that are made on the host, pixels.
    """

    dataset: ShardDataset
    batch_size: int
    batches: int
    workers: int
    view: int


@dataclass(frozen=True)
class Turn:
    """One turn of a loader; the names are those of the metrics, with "_" for a space."""

    rate: float
    rate_of_a_core: float
    first_batch: float
    worker_memory: float | None  # their shared pages counted once; None where it cannot be told
    worker_memory_with_shared: float | None
    processes_left: int
    shared_memory_left: int


UNITS = {
    "rate": "images/s",
    "rate_of_a_core": "images/s",
    "first_batch": "s",
    "worker_memory": "MiB",
    "worker_memory_with_shared": "MiB",
    "processes_left": "",
    "shared_memory_left": "",
}


def bench(job: Job, rounds: int) -> list[Measurement]:
    """Measure all loaders in turn; without PyTorch its loaders are left out."""
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
    found = []
    for name, measured in turns.items():
        for field in fields(Turn):
            values = [getattr(turn, field.name) for turn in measured]
            if None not in values:
                metric, unit = field.name.replace("_", " "), UNITS[field.name]
                found.append(
                    Measurement("pipeline", name, metric, unit=unit, facts=facts, **spread(values))
                )
        for field_name in ("rate", "rate_of_a_core"):
            pairs = zip(measured, turns[BARE], strict=True)  # of a round: neighbours in time
            shares = [100 * getattr(a, field_name) / getattr(b, field_name) for a, b in pairs]
            metric = f"{field_name.replace('_', ' ')} / {BARE}"
            found.append(
                Measurement("pipeline", name, metric, unit="%", facts=facts, **spread(shares))
            )
    return found


def loaders(job: Job) -> Mapping[str, Loader]:
    """What is compared, by name."""
    ours = AHEAD * job.workers
    found = {
        BARE: Loader(partial(_decoding_alone, job), 2 * job.workers),
        "satmip, threads": Loader(partial(_ours, job, 0), ours),
        "satmip, processes": Loader(partial(_ours, job, job.workers), ours),
    }
    if torch_loader.installed():
        theirs = TORCH_AHEAD * job.workers
        records = torch_loader.Records(job.dataset)
        views = torch_loader.TwoViews(job.dataset, job.view)
        found["DataLoader, same decoder"] = Loader(partial(_torch, job, records), theirs)
        found["DataLoader, PIL, two views"] = Loader(partial(_torch, job, views), theirs)
    return found


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
    # a single long epoch: at the end of one DataLoader's workers pause
    numbers = [order[i] for i in range(1 + TORCH_AHEAD * job.workers + job.batches)]
    with torch_loader.loader(data, numbers, job.workers) as batches:
        yield (to_devices(batch, mesh) for batch in batches)


@contextmanager
def _decoding_alone(job: Job) -> Iterator[Iterator[Any]]:
    """The pixels stay in the processes that decode; what comes is how many."""
    some = range(min(len(job.dataset), 512))
    files = [job.dataset[number]["image"] for number in some]
    context = multiprocessing.get_context("spawn")
    side = job.dataset.schema.image_size
    with ProcessPoolExecutor(job.workers, context, _start_decoding, (files, side)) as pool:

        def counts() -> Iterator[dict[str, int]]:
            starts = iter(range(0, 2**62, job.batch_size))
            running = deque(
                pool.submit(decode_some, next(starts), job.batch_size)
                for _ in range(2 * job.workers)
            )
            while True:
                running.append(pool.submit(decode_some, next(starts), job.batch_size))
                yield {"images": running.popleft().result()}

        yield counts()
        pool.shutdown(cancel_futures=True)


_files: list[bytes]
_side: int


def _start_decoding(files: list[bytes], side: int) -> None:
    global _files, _side
    _files, _side = files, side
    images.use_one_thread()


def decode_some(start: int, count: int) -> int:
    """Decode `count` files from number `start` on, round and round; returns how many."""
    for number in range(start, start + count):
        images.decode_square(_files[number % len(_files)], _side)
    return count


def _turn(loader: Loader, job: Job) -> Turn:
    others, shared_before = set(multiprocessing.active_children()), _shared_memory()
    start = time.perf_counter()
    with loader.open() as batches:
        jax.block_until_ready(next(batches))
        first_batch = time.perf_counter() - start
        for _ in range(loader.ahead):
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
    end = time.monotonic() + CLOSING  # some are closed by other threads
    while True:
        processes_left = len(set(multiprocessing.active_children()) - others)
        shared_left = len(_shared_memory() - shared_before)
        if not (processes_left or shared_left) or time.monotonic() > end:
            break
        time.sleep(0.05)
    return Turn(
        rate=delivered / seconds,
        rate_of_a_core=delivered / max(cpu, 1e-9),
        first_batch=first_batch,
        worker_memory=proportional,
        worker_memory_with_shared=resident,
        processes_left=processes_left,
        shared_memory_left=shared_left,
    )


def _jpeg_bytes(dataset: ShardDataset) -> float:
    some = range(min(len(dataset), 64))
    return sum(len(dataset[number]["image"]) for number in some) / len(some)


# --- what Linux tells -----------------------------------------------------------------------------


def _shared_memory() -> set[str]:
    return set(os.listdir(SHARED_MEMORY)) if SHARED_MEMORY.is_dir() else set()


def _cpu_seconds(workers: list[int]) -> float:
    """CPU time of this process and of the workers, as far as the system tells."""
    ticks = 0
    for pid in workers:
        stat = Path(f"/proc/{pid}/stat")
        if stat.exists():
            user, system = stat.read_text().rpartition(")")[2].split()[11:13]
            ticks += int(user) + int(system)
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def _memory(workers: list[int], kind: str) -> float | None:
    """MiB of all workers; "Pss" divides shared pages by how many share them, "Rss" does not."""
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
