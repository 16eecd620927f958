"""Tasks on worker processes, with a progress bar; workers end when their parent ends."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import connection
from typing import Any, TypeVar

from tqdm import tqdm

from satmip_jax.errors import SatmipError

Task = TypeVar("Task")
Result = TypeVar("Result")
Tick = Callable[[], Any]  # called once per item of progress
Work = Callable[[Task, Tick], None]

# a fork would copy locks of other threads (jax, opencv) while they are held
_SPAWN = multiprocessing.get_context("spawn")


class WorkerDiedError(SatmipError, RuntimeError):
    """A worker process ended without an exception, for example because the system killed it."""


def no_setup() -> None:
    """Do nothing; the default initializer of worker processes."""


def cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def run(
    work: Work[Task],
    tasks: Sequence[Task],
    *,
    workers: int | None,
    bar: tqdm,
    initializer: Callable[[], Any] = no_setup,
) -> None:
    """Call `work(task, tick)` for every task.

    Args:
        work: picklable function, for example a method of a dataclass with everything it needs.
        tasks: picklable values.
        workers: number of processes; 0 works in this process, None starts one per core.
        bar: moves by one with every `tick`.
        initializer: picklable function, called first in every worker process.

    Raises:
        WorkerDiedError: a worker was killed. An exception of `work` is raised unchanged.
    """
    workers = min(cores() if workers is None else workers, len(tasks))
    if workers == 0:
        for task in tasks:
            work(task, bar.update)
        return
    ticks = _SPAWN.Value("q", 0)
    start = bar.n
    with _pool(workers, work, ticks, initializer) as pool:
        with _interrupts_held():
            running: set[Future[None]] = {pool.submit(_call, task) for task in tasks}
        while running:
            finished, running = wait(running, 0.2, FIRST_COMPLETED)
            bar.update(start + ticks.value - bar.n)
            for future in finished:
                future.result()


def map_in_order(
    work: Callable[[Task], Result],
    tasks: Iterable[Task],
    *,
    workers: int,
    initializer: Callable[[], Any] = no_setup,
) -> Iterator[Result]:
    """Yield the results of the tasks in their order, computed by worker processes.

    At most `workers` + 2 results or tasks are pending, so memory is bounded however many tasks
    there are.

    Args:
        work: picklable function.
        tasks: picklable values, taken in the calling thread.
        workers: number of processes.
        initializer: picklable function, called first in every worker process.

    Raises:
        WorkerDiedError: a worker was killed. An exception of `work` is raised unchanged.
    """
    pending: deque[Future[Result]] = deque()
    with _pool(workers, work, None, initializer) as pool:
        for task in tasks:
            with _interrupts_held():  # it may start a process
                pending.append(pool.submit(_result, task))
            if len(pending) > workers + 1:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


@contextmanager
def _pool(
    workers: int, work: Callable[..., Any], ticks: Any, initializer: Callable[[], Any]
) -> Iterator[ProcessPoolExecutor]:
    """Yield a pool whose workers are ended at once if the block raises."""
    # a background job of a shell ignores Ctrl-C, and so must its workers
    ignores = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    with ProcessPoolExecutor(workers, _SPAWN, _start, (work, ticks, initializer, ignores)) as pool:
        try:
            yield pool
        except BaseException as error:
            started = [*pool._processes.values()]  # not `active_children`: others have some, too
            pool.shutdown(wait=False, cancel_futures=True)
            for child in started:
                child.terminate()
            if isinstance(error, BrokenProcessPool):
                raise WorkerDiedError(
                    "a worker process was killed; did it run out of memory? Use fewer workers"
                ) from error
            raise


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Deliver Ctrl-C at the end of the block; processes that it starts hold it until `_start`."""
    received: list[int] = []
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # processes inherit it
    handler = signal.getsignal(signal.SIGINT)
    replaced = threading.current_thread() is threading.main_thread() and handler is not None
    if replaced:  # another thread may receive the signal
        signal.signal(signal.SIGINT, lambda number, _: received.append(number))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if replaced:
            signal.signal(signal.SIGINT, handler)
    if received:
        signal.raise_signal(signal.SIGINT)


_work: Any
_ticks: Any


def _start(
    work: Callable[..., Any], ticks: Any, initializer: Callable[[], Any], ignores: bool
) -> None:
    global _work, _ticks
    _work, _ticks = work, ticks
    initializer()
    if ignores:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))  # Ctrl-C: the parent reports it
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    end_with_parent()


def end_with_parent() -> None:
    """Make this worker process end when its parent ends, however that happens."""

    def wait_for_parent() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            connection.wait([parent.sentinel])
            os._exit(1)

    threading.Thread(target=wait_for_parent, daemon=True).start()


def _call(task: Any) -> None:
    _work(task, _tick)


def _result(task: Any) -> Any:
    return _work(task)


def _tick() -> None:
    with _ticks.get_lock():
        _ticks.value += 1
