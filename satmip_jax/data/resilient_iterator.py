"""An iterator over worker processes that detects those that die or hang, and restarts them."""

from __future__ import annotations

import logging
import multiprocessing
import pickle
import queue
import signal
import threading
import traceback
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from typing import Any

from satmip_jax.data import images
from satmip_jax.data.shared_memory import SharedMemoryForbiddenError
from satmip_jax.errors import SatmipError
from satmip_jax.runtime.console import ALL_PROCESSES
from satmip_jax.runtime.process_pool import end_with_parent

log = logging.getLogger(__name__)

PATIENCE = 300.0  # seconds without an element after which workers count as hanging
START_TIME = 120.0  # further seconds for the first one: processes start and import
RESTARTS = 3  # in a row, without an element between them

# A lost process: grain raises RuntimeError, and pipes that it wrote to end in the middle.
FAILURES = (TimeoutError, RuntimeError, OSError, EOFError, pickle.UnpicklingError)

_owned: weakref.WeakSet[BaseProcess] = weakref.WeakSet()  # workers of all iterators


class WorkersError(SatmipError, RuntimeError):
    """The worker processes died or hung again and again."""


def start_worker(worker: int, workers: int) -> None:
    """Set up a worker process; for grain's `worker_init_fn`."""
    del worker, workers
    # terminals and schedulers signal all processes; the trainer saves, then ends its workers
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    end_with_parent()
    images.use_one_thread()


@dataclass(frozen=True)
class TaskError:
    """An exception of a worker's task, sent in place of its result."""

    error: Exception


@dataclass(frozen=True)
class CatchErrors:
    """Runs a task in a worker; returns its result, or a `TaskError`.

    So an error of the task (a disk that fails, a bug) is never taken for a lost process.
    """

    task: Callable[[Any], Any]

    def __call__(self, argument: Any) -> Any:
        """Return the result of the task, or its error."""
        try:
            return self.task(argument)
        except Exception as error:
            error.add_note(f"In a worker process:\n{traceback.format_exc()}")
            return TaskError(error)


class ResilientIterator:
    """Iterates over elements of worker processes; restarts the workers at the same element.

    Args:
        make: `make(n)` starts workers and returns an iterator whose first element is number n; it
            has `close()`. Its tasks are wrapped in `CatchErrors`.
        patience: seconds to wait for an element.

    Raises:
        WorkersError: in `next`, if there is no element after `RESTARTS` restarts. An error of a
            task is raised unchanged.
    """

    def __init__(self, make: Callable[[int], Any], *, patience: float = PATIENCE) -> None:
        self._make, self._patience = make, patience
        self._position = 0
        self._start()

    def _start(self) -> None:
        self._other_processes = set(multiprocessing.active_children())
        self._workers: set[BaseProcess] = set()
        self._iterator, self._just_started = self._make(self._position), True

    def restart(self) -> None:
        """Kill the workers and start others at the same element."""
        self._kill()
        self._start()

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        for restarts in range(RESTARTS + 1):
            try:
                element = self._take()
            except (SharedMemoryForbiddenError, NotImplementedError, RecursionError):
                raise  # a restart would not help
            except FAILURES as error:
                problem = str(error).split(". Search")[0] or type(error).__name__
                if restarts == RESTARTS:
                    self._kill()
                    break
                log.warning(
                    f"worker processes failed: {problem}; restarting them at the same batch "
                    f"({restarts + 1} of at most {RESTARTS} restarts in a row)",
                    extra=ALL_PROCESSES,
                )
                self.restart()
            else:
                if self._just_started:
                    self._find_workers()
                self._position += 1
                self._just_started = False
                if isinstance(element, TaskError):
                    raise element.error
                return element
        raise WorkersError(
            f"worker processes failed {RESTARTS + 1} times in a row, the last time: {problem}. "
            "Is there enough memory? Use fewer workers (config.data.workers=0 decodes in threads)."
        )

    def _take(self) -> Any:
        """Return the next element; a thread waits for it, which may be left behind."""
        results: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()
        iterator = self._iterator

        def take() -> None:
            try:
                results.put((next(iterator), None))
            except BaseException as error:
                results.put((None, error))

        threading.Thread(target=take, name="next-batch", daemon=True).start()
        limit = self._patience + (START_TIME if self._just_started else 0.0)
        try:
            element, error = results.get(timeout=limit / 5)
        except queue.Empty:
            log.warning(
                f"no batch for {limit / 5:.0f} s: decoding is slow or hangs", extra=ALL_PROCESSES
            )
            try:
                element, error = results.get(timeout=limit * 4 / 5)
            except queue.Empty:
                raise TimeoutError(f"no batch for {limit:.0f} s") from None
        if error is not None:
            raise error
        return element

    def _find_workers(self) -> None:
        """Note which processes are this iterator's: they start at its first element."""
        started = set(multiprocessing.active_children()) - self._other_processes
        self._workers |= {child for child in started if child not in _owned}
        _owned.update(self._workers)

    def _kill(self) -> None:
        """End the workers at once: one that hangs would not react to a request."""
        self._find_workers()
        for child in self._workers:
            child.kill()
            child.join()
        self._iterator.close()

    def close(self) -> None:
        """End the workers."""
        self._iterator.close()
