"""A lock on a folder in a bucket, where the file system's locks do not exist.

    <path>.<number>   JSON of one holder: who it is, a count of heartbeats, whether it has ended

Of the holders the one with the highest number counts. A process takes over by creating the next
number, which a store lets only one process do. It may do so when the last holder has ended, or is
no longer alive: by its process on the same machine, or because its heartbeats have stopped. A
holder that was taken for dead finds the higher number and must stop.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
import uuid
from pathlib import Path
from types import TracebackType
from typing import Any

from satmip_jax.errors import SatmipError
from satmip_jax.runtime import stores
from satmip_jax.runtime.paths import AnyPath

log = logging.getLogger(__name__)

BEAT = 10.0  # seconds between two heartbeats
PATIENCE = 60.0  # seconds without a heartbeat after which a holder counts as dead


class LockHeldError(SatmipError, RuntimeError):
    """Another process holds the lock, or has taken it; the message names the process."""


class StoreLock:
    """Exclusive use of a folder in a bucket, from `acquire` to the end of a `with` block.

    Args:
        path: of the objects of the lock, without their numbers.
    """

    def __init__(self, path: AnyPath) -> None:
        self._path, self._number, self._beats = path, 0, 0
        self._me: dict[str, Any] = {
            "holder": f"process {os.getpid()} on {socket.gethostname()}",
            "process": _process(os.getpid()),
            "token": uuid.uuid4().hex,
        }
        self._ended = threading.Event()
        self._lost_to = ""
        self._thread = threading.Thread(target=self._beat, name="store-lock", daemon=True)

    def check(self) -> None:
        """Raise `LockHeldError` if another process has taken this one for dead."""
        if self._lost_to:
            raise LockHeldError(
                f"{self._lost_to} has taken over {os.fspath(self._path.parent)}, as nothing was "
                f"heard of this process for {PATIENCE:.0f} s: this one ends"
            )

    def acquire(self) -> None:
        """Take the lock; it may take `PATIENCE` to find out that its last holder is dead.

        Raises:
            LockHeldError: another process holds it and is alive; its text is the process.
            OSError: the bucket cannot be read or written.
        """
        while True:
            numbers = self._numbers()
            last = max(numbers, default=0)
            if last and (holder := self._living(last)):
                raise LockHeldError(holder)
            self._number = last + 1
            if stores.create(self._object(self._number), self._content()):
                break  # otherwise another process was faster
        for number in numbers:
            self._object(number).unlink(missing_ok=True)
        self._thread.start()

    def __enter__(self) -> StoreLock:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()
        if not self._lost_to:
            try:
                stores.put(self._object(self._number), self._content(ended=True))
            except OSError as failure:
                log.warning(f"{os.fspath(self._path)} could not be released: {failure}")

    def _numbers(self) -> list[int]:
        prefix = self._path.name + "."
        names = stores.names_in(self._path.parent)
        ends = (name.removeprefix(prefix) for name in names if name.startswith(prefix))
        return [int(end) for end in ends if end.isdecimal()]

    def _object(self, number: int) -> AnyPath:
        return self._path.parent / f"{self._path.name}.{number}"

    def _content(self, *, ended: bool = False) -> bytes:
        return json.dumps({**self._me, "beats": self._beats, "ended": ended}).encode()

    def _read(self, number: int) -> dict[str, Any]:
        """Return the content of an object; empty if it is gone or cannot be understood."""
        try:
            content = json.loads(stores.get(self._object(number)))
        except (FileNotFoundError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def _living(self, number: int) -> str:
        """Return the name of a holder that is alive, else ""."""
        first = self._read(number)
        if not first or first.get("ended"):
            return ""
        process, mine = first.get("process") or {}, self._me["process"]
        if isinstance(process, dict) and process.get("system") == mine["system"]:
            return first["holder"] if _process(process.get("id")) == process else ""
        log.info(
            f"{first.get('holder')} has used {os.fspath(self._path.parent)}: waiting up to "
            f"{PATIENCE:.0f} s for a sign that it is alive"
        )
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            time.sleep(BEAT / 5)
            now = self._read(number)
            if not now or now.get("ended"):
                return ""
            if now != first:
                return str(now.get("holder"))
        return ""

    def _beat(self) -> None:
        while not self._ended.wait(BEAT):
            try:
                if (last := max(self._numbers(), default=0)) > self._number:
                    self._lost_to = str(self._read(last).get("holder") or "another process")
                    log.error(f"{self._lost_to} has taken over {os.fspath(self._path.parent)}")
                    return
                self._beats += 1
                stores.put(self._object(self._number), self._content())
            except Exception as error:  # of the network: the next one may arrive
                log.warning(f"no heartbeat at {os.fspath(self._path)}: {error}")


def _process(number: Any) -> dict[str, Any]:
    """Return what tells a process from all others; without its start if it is not alive."""
    try:
        system = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        system += os.readlink("/proc/self/ns/pid")  # numbers are those of a container
    except OSError:
        system = uuid.uuid4().hex  # unknown: equal to no other
    try:
        start = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        start = ""
    return {"system": system, "id": number, "start": start}
