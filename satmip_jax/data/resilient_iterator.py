"""Batches from decoding processes that may die or hang: noticed, said, and started again."""

from __future__ import annotations

import logging
import multiprocessing
import queue
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

from satmip_jax.data import images
from satmip_jax.errors import SatmipError
from satmip_jax.runtime.console import ALL_PROCESSES
from satmip_jax.runtime.process_pool import end_with_parent

log = logging.getLogger(__name__)

PATIENCE = 300.0  # seconds without a batch, after which workers count as hanging
STARTING = 120.0  # seconds more for the first one: processes start, and import much
RESTARTS = 3  # in a row, without a batch between them


class WorkersError(SatmipError, RuntimeError):
    """The decoding processes died or hung again and again."""


def start_worker(worker: int, workers: int) -> None:
    """What each decoding process does first (see grain's `worker_init_fn`)."""
    del worker, workers
    # terminals and schedulers signal all processes; the trainer saves, then ends its workers
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    end_with_parent()
    images.use_one_thread()


class ResilientIterator:
    """An iterator over worker processes that is made anew where it was when they fail.

    Args:
        make: `make(n)` returns an iterator whose first element is number n; it has `close()`.
        patience: seconds to wait for an element.

    Raises (in `next`):
        WorkersError: no element came after `RESTARTS` new starts.
    """

    def __init__(self, make: Callable[[int], Any], *, patience: float = PATIENCE) -> None:
        self._make, self._patience = make, patience
        self._position = 0
        self._start()

    def _start(self) -> None:
        self._others = set(multiprocessing.active_children())
        self._iterator, self._fresh = self._make(self._position), True

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        for restarts in range(RESTARTS + 1):
            try:
                element = self._take()
            except (TimeoutError, RuntimeError, OSError) as error:
                # what a worker raises keeps its type; of a lost process grain says RuntimeError
                if isinstance(error, NotImplementedError | RecursionError):
                    raise
                problem = str(error).split(". Search")[0]
                self._kill()
                if restarts == RESTARTS:
                    break
                log.warning(
                    f"decoding processes failed: {problem}; started again at the same batch "
                    f"({restarts + 1} of at most {RESTARTS} times in a row)",
                    extra=ALL_PROCESSES,
                )
                self._start()
            else:
                self._position += 1
                self._fresh = False
                return element
        raise WorkersError(
            f"decoding processes failed {RESTARTS + 1} times in a row, at last: {problem}. "
            "Is there memory enough? Try fewer (config.data.workers=0 decodes in threads)."
        )

    def _take(self) -> Any:
        """The next element; it is waited for in a thread, which may be left behind."""
        answer: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()
        iterator = self._iterator

        def take() -> None:
            try:
                answer.put((next(iterator), None))
            except BaseException as error:
                answer.put((None, error))

        threading.Thread(target=take, name="next-batch", daemon=True).start()
        limit = self._patience + (STARTING if self._fresh else 0.0)
        try:
            element, error = answer.get(timeout=limit / 5)
        except queue.Empty:
            log.warning(
                f"no batch for {limit / 5:.0f} s: decoding is slow, or hangs", extra=ALL_PROCESSES
            )
            try:
                element, error = answer.get(timeout=limit * 4 / 5)
            except queue.Empty:
                raise TimeoutError(f"no batch for {limit:.0f} s") from None
        if error is not None:
            raise error
        return element

    def _kill(self) -> None:
        """End the workers at once: one that hangs would not answer."""
        for child in set(multiprocessing.active_children()) - self._others:
            child.kill()
            child.join()
        self._iterator.close()

    def close(self) -> None:
        self._iterator.close()
