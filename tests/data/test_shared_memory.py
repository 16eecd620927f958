"""Transfer of pixels through shared memory."""

import builtins
import gc
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from satmip_jax.data import shared_memory
from satmip_jax.data.shared_memory import SharedMemoryForbiddenError, WorkerEndedError


def forbidden(path, *_, **__):
    raise PermissionError(13, "Permission denied", path)


def test_memory_of_a_process_that_ended_is_reported():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    reference = shared_memory.SharedArrayRef(process.pid, 7, (2, 3))
    with pytest.raises(WorkerEndedError, match=f"process {process.pid} ended before its pixels"):
        shared_memory.SharedArrayReceiver()({"image": reference})


def test_memory_of_a_killed_worker_is_not_forbidden(monkeypatch):
    """Until its parent waits for it, only root may look into /proc/PID/fd of a dead process."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    reference = shared_memory.SharedArrayRef(process.pid, 7, (2, 3))
    monkeypatch.setattr(builtins, "open", forbidden)
    with pytest.raises(SharedMemoryForbiddenError):
        shared_memory.SharedArrayReceiver()({"image": reference})
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it stays a zombie
    with pytest.raises(WorkerEndedError):
        shared_memory.SharedArrayReceiver()({"image": reference})
    process.communicate()


def test_memory_that_may_not_be_opened_is_another_error(monkeypatch):
    """Some containers forbid /proc/PID/fd: the worker is well, and a restart would not help."""
    _, reference = shared_memory.allocate((2, 3))
    monkeypatch.setattr(builtins, "open", forbidden)
    with pytest.raises(SharedMemoryForbiddenError, match=r"cannot be opened: .*denied.*/proc/"):
        shared_memory.SharedArrayReceiver()({"image": reference})


def test_a_buffer_is_reused_only_when_its_array_is_gone():
    shape = (2, 3, 4)
    receive = shared_memory.SharedArrayReceiver()

    def send(value):
        pixels, reference = shared_memory.allocate(shape)
        pixels[...] = value
        del pixels
        return reference, receive({"image": reference, "label": 7})

    first, batch = send(1)
    kept = batch["image"][1:, :2]  # a view
    array = jax.device_put(batch["image"])
    del batch
    second, other = send(2)
    assert second.descriptor != first.descriptor
    assert (kept == 1).all()
    assert (np.asarray(array) == 1).all()
    assert (other["image"] == 2).all()
    assert other["label"] == 7
    del kept, array
    gc.collect()  # jax releases its reference a little later
    third, again = send(3)
    assert third == first
    assert (again["image"] == 3).all()
