"""Stopping: SIGTERM or Ctrl-C on any process ends all of them after the same step."""

from __future__ import annotations

import signal
from collections import deque
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from satmip_jax.distributed.sharding import replicated, to_devices

SIGNALS = (signal.SIGTERM, signal.SIGINT)
LAG = 2  # steps before the processes act on a signal: the device is not waited for


class PreemptionHandler:
    """Notes SIGTERM and Ctrl-C instead of dying; a second one dies at once.

    With several processes each lays its signal number on its devices after every step, their
    maximum is taken there, and all read the one of LAG steps ago: the same everywhere, without
    holding up the device. JAX's own `reached_preemption_sync_point` hears no Ctrl-C and misses
    what comes before the first step of a resumed run.

    Example:
        >>> with PreemptionHandler(mesh) as stop:
        ...     for step in range(steps):
        ...         ...
        ...         if (reason := stop.after_step()) is not None:
        ...             break  # "SIGTERM", say; all processes are here
    """

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        self._received: signal.Signals | None = None
        self._previous: dict[int, Any] = {}
        self._asked: deque[jax.Array] = deque()
        self._largest = jax.jit(jnp.max, out_shardings=replicated(mesh))

    def after_step(self) -> str | None:
        """Name of the signal for which all processes stop now; to be called after each step."""
        if jax.process_count() == 1:
            return self._received.name if self._received else None
        # the number of the process is in it, so that the message can name one
        code = jax.process_index() * 64 + self._received if self._received else 0
        mine = np.full(self.mesh.size // jax.process_count(), code, np.int32)
        self._asked.append(self._largest(to_devices(mine, self.mesh)))
        if len(self._asked) <= LAG:
            return None
        process, number = divmod(int(jax.device_get(self._asked.popleft())), 64)
        return f"{signal.Signals(number).name} to process {process}" if number else None

    def _note(self, number: int, frame: object) -> None:
        if self._received:
            signal.signal(number, self._previous[number])
            signal.raise_signal(number)
        self._received = signal.Signals(number)

    def __enter__(self) -> PreemptionHandler:
        for number in SIGNALS:
            self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
