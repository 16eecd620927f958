"""Several calls of a function at a time, in threads of this process."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def map_in_order(function: Callable[[T], R], items: Iterable[T], threads: int) -> Iterator[R]:
    """Yield the results of the items in their order, computed by a number of threads.

    At most `threads` + 1 results or calls are pending, so memory is bounded however many items
    there are. One thread is the calling one.

    Args:
        function: called once per item; safe to call in threads.
        items: taken in the calling thread.
        threads: number of calls at a time.

    Example:
        >>> from satmip_jax.runtime.threads import map_in_order
        >>> list(map_in_order(abs, [3, -1, -2], threads=2))
        [3, 1, 2]
    """
    if threads == 1:
        yield from map(function, items)
        return
    pending: deque[Future[R]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) > threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # after an error, begin no other call
