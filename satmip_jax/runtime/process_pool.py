"""Tasks over worker processes, with a progress bar, that end when their parent ends."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection
from typing import Any, TypeVar

from tqdm import tqdm

from satmip_jax.errors import SatmipError

Task = TypeVar("Task")
Tick = Callable[[], Any]  # called once per item of progress
Work = Callable[[Task, Tick], None]


class WorkerDiedError(SatmipError, RuntimeError):
    """A worker process ended without an error of its own, as when the system kills it."""


def nothing() -> None:
    """Do nothing: what worker processes start with by default."""


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def run(
    work: Work[Task],
    tasks: Sequence[Task],
    *,
    workers: int | None,
    bar: tqdm,
    initializer: Callable[[], Any] = nothing,
) -> None:
    """Calls `work(task, tick)` for every task.

    Args:
      work: Picklable, with what it needs bound to it (a method of a dataclass, say).
      tasks: Picklable.
      workers: Processes; 0 works in this one; None takes a process per core.
      bar: Moves on by one with every `tick`.
      initializer: Picklable; called first in every worker process.

    Raises:
      WorkerDiedError: A worker was killed. An exception of `work` itself is raised as it is.
    """
    workers = min(cores() if workers is None else workers, len(tasks))
    if workers == 0:
        for task in tasks:
            work(task, bar.update)
        return
    # spawn: a fork would copy the locks of other threads (jax, opencv) in whatever state
    context = multiprocessing.get_context("spawn")
    ticks = context.Value("q", 0)
    before = set(multiprocessing.active_children())
    start = bar.n
    with ProcessPoolExecutor(workers, context, _start, (work, ticks, initializer)) as pool:
        try:
            running: set[Future[None]] = {pool.submit(_call, task) for task in tasks}
            while running:
                finished, running = wait(running, 0.2, FIRST_COMPLETED)
                bar.update(start + ticks.value - bar.n)
                for future in finished:
                    future.result()
        except BaseException as error:
            pool.shutdown(wait=False, cancel_futures=True)
            for child in set(multiprocessing.active_children()) - before:
                child.terminate()
            if isinstance(error, BrokenProcessPool):
                raise WorkerDiedError(
                    "a worker process died, perhaps for want of memory"
                ) from error
            raise


_work: Any
_ticks: Any


def _start(work: Work[Any], ticks: Any, initializer: Callable[[], Any]) -> None:
    global _work, _ticks
    _work, _ticks = work, ticks
    initializer()
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))  # Ctrl-C: the parent says what happened
    end_with_parent()


def end_with_parent() -> None:
    """Let this worker process end when its parent does, in whatever way; else it waits for ever."""

    def wait_for_parent() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            connection.wait([parent.sentinel])
            os._exit(1)

    threading.Thread(target=wait_for_parent, daemon=True).start()


def _call(task: Any) -> None:
    _work(task, _tick)


def _tick() -> None:
    with _ticks.get_lock():
        _ticks.value += 1
