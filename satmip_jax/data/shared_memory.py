"""Zero-copy transfer of decoded pixels from worker processes, through reusable shared memory.

A worker decodes into a buffer of its own and sends a reference to it. The trainer maps the buffer.
When the trainer's arrays of it are deleted, a flag in the buffer frees it, and the worker fills it
again. So after the first batches no page is new: touching new shared memory takes half as long as
decoding, and a copy would add to that.

Buffers have no name (`memfd_create`): nothing is left of them, however a process ends, and the
limit of /dev/shm does not apply. Only Linux has them. Where a process may not open the buffers of
its workers (/proc/PID/fd is forbidden in some containers), the loader sends pixels through pipes.
"""

from __future__ import annotations

import math
import mmap
import os
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from satmip_jax.errors import SatmipError

HEADER = mmap.PAGESIZE  # its first byte is the flag; pixels begin aligned for any device
FREE, IN_USE = 0, 1

_buffers: dict[int, mmap.mmap] = {}  # of this worker, by file descriptor


class WorkerEndedError(SatmipError, RuntimeError):
    """The worker process of a buffer has ended, and its memory with it."""


class SharedMemoryForbiddenError(SatmipError, PermissionError):
    """The system does not let this process open the buffers of its workers."""


def available() -> bool:
    """Return whether this system has such memory."""
    return hasattr(os, "memfd_create")


@dataclass(frozen=True)
class SharedArrayRef:
    """Reference to a uint8 array in a buffer of a worker process; it is sent instead of the array.

    Attributes:
        process: process id of the worker.
        descriptor: the worker's file descriptor of the buffer.
        shape: shape of the array.
    """

    process: int
    descriptor: int
    shape: tuple[int, ...]


def allocate(shape: tuple[int, ...]) -> tuple[np.ndarray, SharedArrayRef]:
    """Return a uint8 array to fill, and the reference to send; for worker processes.

    The array is in use until the receiver of the reference deletes its own array, so every
    reference must be sent exactly once.
    """
    size = HEADER + math.prod(shape)
    reusable = (d for d, buffer in _buffers.items() if buffer[0] == FREE and len(buffer) == size)
    descriptor = next(reusable, None)
    if descriptor is None:
        descriptor = os.memfd_create("pixels")
        os.ftruncate(descriptor, size)
        _buffers[descriptor] = mmap.mmap(descriptor, size)
    buffer = _buffers[descriptor]
    buffer[0] = IN_USE
    return _pixels(buffer, shape), SharedArrayRef(os.getpid(), descriptor, shape)


class SharedArrayReceiver:
    """Replaces references in batches by arrays; in the trainer, one for each set of workers."""

    def __init__(self) -> None:
        self._buffers: dict[tuple[int, int], mmap.mmap] = {}

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Return the batch with arrays; an array frees its buffer when nothing refers to it.

        Raises:
            WorkerEndedError: the worker has ended.
            SharedMemoryForbiddenError: the system does not let this process open the buffer.
        """
        return {k: self._open(v) if isinstance(v, SharedArrayRef) else v for k, v in batch.items()}

    def _open(self, reference: SharedArrayRef) -> np.ndarray:
        key = reference.process, reference.descriptor
        if key not in self._buffers:
            path = f"/proc/{reference.process}/fd/{reference.descriptor}"
            try:
                with open(path, "r+b", buffering=0) as file:
                    size = HEADER + math.prod(reference.shape)
                    self._buffers[key] = mmap.mmap(file.fileno(), size)
            except (FileNotFoundError, ProcessLookupError, PermissionError) as error:
                # It may have been killed after it sent the reference. Linux lets only root open
                # the files of a process that has ended, until its parent has waited for it.
                if not isinstance(error, PermissionError) or _has_ended(reference.process):
                    raise WorkerEndedError(
                        f"worker process {reference.process} ended before its pixels were received"
                    ) from None
                raise SharedMemoryForbiddenError(
                    f"shared memory of worker process {reference.process} cannot be opened: {error}"
                ) from error
        buffer = self._buffers[key]
        pixels = _pixels(buffer, reference.shape)
        # views, and JAX arrays made of it without a copy, keep the array that owns the memory
        weakref.finalize(pixels.base, buffer.__setitem__, 0, FREE).atexit = False
        return pixels


def _has_ended(process: int) -> bool:
    """Return whether a process has no memory any more; a zombie has none."""
    try:
        return Path(f"/proc/{process}/statm").read_text(encoding="ascii").startswith("0 ")
    except (FileNotFoundError, ProcessLookupError):
        return True
    except PermissionError:
        return False  # unknown


def _pixels(buffer: mmap.mmap, shape: tuple[int, ...]) -> np.ndarray:
    return np.frombuffer(buffer, np.uint8, math.prod(shape), HEADER).reshape(shape)
