"""Pixels from a decoding process to the trainer without a copy, in memory that is used again.

A worker decodes into a segment of its own and lends it: what travels says how to open it. When the
trainer's arrays of it are gone, a mark in the segment gives it back, and the worker fills it anew.
So no page is fresh after the first batches; fresh shared memory takes as long to touch as half of
the decoding, and to copy into it comes on top.

Segments have no name (`memfd_create`): nothing is left of them, whichever process dies and
however, and no limit of /dev/shm counts. Linux has them, other systems do not.
"""

from __future__ import annotations

import math
import mmap
import os
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

HEADER = mmap.PAGESIZE  # its first byte is the mark; so pixels begin where any device likes it
FREE, LENT = 0, 1

_own: dict[int, mmap.mmap] = {}  # this worker's segments by descriptor


def available() -> bool:
    """Whether this system has such memory."""
    return hasattr(os, "memfd_create")


@dataclass(frozen=True)
class SharedArrayRef:
    """Where the trainer finds an array of bytes: what travels in its place."""

    process: int
    descriptor: int
    shape: tuple[int, ...]


def lend(shape: tuple[int, ...]) -> tuple[np.ndarray, SharedArrayRef]:
    """A uint8 array to fill, in a worker, and what to send of it; each is to be sent once."""
    size = HEADER + math.prod(shape)
    usable = (d for d, memory in _own.items() if memory[0] == FREE and len(memory) == size)
    descriptor = next(usable, None)
    if descriptor is None:
        descriptor = os.memfd_create("pixels")
        os.ftruncate(descriptor, size)
        _own[descriptor] = mmap.mmap(descriptor, size)
    memory = _own[descriptor]
    memory[0] = LENT
    return _pixels(memory, shape), SharedArrayRef(os.getpid(), descriptor, shape)


class SharedArrayReceiver:
    """Puts arrays in place of what was lent; in the trainer, one for each set of workers."""

    def __init__(self) -> None:
        self._opened: dict[tuple[int, int], mmap.mmap] = {}

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """The batch with arrays; each gives its memory back when nothing refers to it any more.

        Raises:
            RuntimeError: the process that lent it has ended; its memory is gone with it.
        """
        return {k: self._open(v) if isinstance(v, SharedArrayRef) else v for k, v in batch.items()}

    def _open(self, lent: SharedArrayRef) -> np.ndarray:
        key = lent.process, lent.descriptor
        if key not in self._opened:
            path = f"/proc/{lent.process}/fd/{lent.descriptor}"
            try:
                with open(path, "r+b", buffering=0) as file:
                    self._opened[key] = mmap.mmap(file.fileno(), HEADER + math.prod(lent.shape))
            except FileNotFoundError:  # it was killed between sending and now
                raise RuntimeError(
                    f"worker process {lent.process} ended before its pixels were taken"
                ) from None
        memory = self._opened[key]
        pixels = _pixels(memory, lent.shape)
        # views, and what JAX makes of it without a copy, keep the array that owns the buffer
        weakref.finalize(pixels.base, memory.__setitem__, 0, FREE).atexit = False
        return pixels


def _pixels(memory: mmap.mmap, shape: tuple[int, ...]) -> np.ndarray:
    return np.frombuffer(memory, np.uint8, math.prod(shape), HEADER).reshape(shape)
