"""Preemption: SIGTERM or Ctrl-C on any process stops all of them after the same step."""

from __future__ import annotations

import signal
import threading
from collections import deque
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from satmip_jax.distributed.sharding import process_rows, replicated, to_devices

SIGNALS = (signal.SIGTERM, signal.SIGINT)
LAG = 2  # steps until the processes act on a signal, so that they need not wait for the device


class PreemptionHandler:
    """Remembers SIGTERM or Ctrl-C until the end of a step; a second signal ends the process.

    In a run of several processes, each puts its signal number on its devices after every step. The
    devices take the maximum, and all processes read the one of LAG steps ago: it is the same
    everywhere, and the devices are not stalled. JAX's own `reached_preemption_sync_point` ignores
    Ctrl-C, and signals before the first step of a resumed run. Python handles signals in the main
    thread: in another one they have their usual effect.

    Args:
        mesh: all devices of all processes.

    Example:
        >>> import signal
        >>> from satmip_jax.distributed.preemption import PreemptionHandler
        >>> from satmip_jax.distributed.sharding import make_mesh
        >>> with PreemptionHandler(make_mesh()) as preemption:
        ...     for step in range(10):
        ...         if step == 3:
        ...             signal.raise_signal(signal.SIGTERM)
        ...         if (reason := preemption.after_step()) is not None:
        ...             break  # on all processes
        >>> step, reason
        (3, 'SIGTERM')
    """

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        self._received: signal.Signals | None = None
        self._previous: dict[int, Any] = {}
        self._pending: deque[jax.Array] = deque()
        self._largest = jax.jit(jnp.max, out_shardings=replicated(mesh))

    def after_step(self) -> str | None:
        """Return the signal for which all processes stop now, or None; call it after each step."""
        if jax.process_count() == 1:
            return self._received.name if self._received else None
        # the number of the process is included for the message
        code = jax.process_index() * 64 + self._received if self._received else 0
        local = np.full(len(process_rows(self.mesh, self.mesh.size)), code, np.int32)
        self._pending.append(self._largest(to_devices(local, self.mesh)))
        if len(self._pending) <= LAG:
            return None
        process, number = divmod(int(jax.device_get(self._pending.popleft())), 64)
        return f"{signal.Signals(number).name} to process {process}" if number else None

    def _note(self, number: int, frame: object) -> None:
        if self._received:
            signal.signal(number, self._previous[number])
            signal.raise_signal(number)
        self._received = signal.Signals(number)

    def __enter__(self) -> PreemptionHandler:
        is_main = threading.current_thread() is threading.main_thread()
        for number in SIGNALS if is_main else ():
            self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
