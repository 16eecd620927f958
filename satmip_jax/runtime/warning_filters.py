"""Warnings that are ignored for a while, in a process of several threads."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, cast

_lock = threading.Lock()
_added: dict[tuple[str, type[Warning], str], list[Any]] = {}  # the filter, once for each user


@contextmanager
def ignored(
    message: str = "", category: type[Warning] = Warning, module: str = ""
) -> Iterator[None]:
    """Ignore warnings in a block, in all threads; several may be in such a block.

    Filters belong to the process. `warnings.catch_warnings` puts back those that it found: where
    the blocks of two threads overlap, what one of them ignores may be ignored forever. Here one
    filter goes in with the first thread, and out with the last.

    Args:
        message: pattern of the beginning of their text; "" is any.
        category: their class.
        module: pattern of the beginning of the module that warns; "" is any.

    Example:
        >>> import warnings
        >>> from satmip_jax.runtime.warning_filters import ignored
        >>> with ignored("old", FutureWarning):
        ...     warnings.warn("old version", FutureWarning)
    """
    key = message, category, module
    with _lock:
        users = _added.setdefault(key, [])
        if not users:
            warnings.filterwarnings("ignore", message, category, module)
        users.append(users[0] if users else warnings.filters[0])
    try:
        yield
    finally:
        with _lock:
            added = users.pop()
            if not users:
                with suppress(ValueError):  # another thread has put back the filters it found
                    cast("list[Any]", warnings.filters).remove(added)
