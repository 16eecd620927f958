"""The lock on a folder in a bucket."""

import json
import multiprocessing
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from satmip_jax.runtime import store_lock, stores
from satmip_jax.runtime.paths import as_path
from satmip_jax.runtime.store_lock import LockHeldError, StoreLock


@pytest.fixture
def path(bucket):
    return as_path(bucket) / "train.lock"


def locked(path):
    lock = StoreLock(path)
    lock.acquire()
    return lock


def elsewhere(path, number):
    """Let the holder seem to be on another machine."""
    place = path.parent / f"{path.name}.{number}"
    content = json.loads(stores.get(place))
    content["process"]["system"] = "another"
    stores.put(place, json.dumps(content).encode())


def test_one_process_holds_it_and_leaves_it(path):
    me = f"process {os.getpid()} on"
    with locked(path), pytest.raises(LockHeldError, match=me), locked(path):
        pass
    with locked(path):
        pass
    assert len(stores.names_in(path.parent)) == 1  # old numbers are removed


def test_heartbeats_keep_it_and_silence_loses_it(path, monkeypatch):
    monkeypatch.setattr(store_lock, "BEAT", 0.05)
    with locked(path) as first:
        first._me["process"] = {"system": "another"}
        elsewhere(path, 1)
        with pytest.raises(LockHeldError), locked(path):  # as soon as there is a heartbeat
            pass
        first.check()
        silent = threading.Event()

        def same(**_):
            silent.set()
            return stores.get(path.parent / "train.lock.1")

        with monkeypatch.context() as patch:
            patch.setattr(first, "_content", same)
            patch.setattr(store_lock, "PATIENCE", 0.5)
            assert silent.wait(60)  # the last heartbeat has arrived
            with locked(path) as second:
                first._thread.join(60)
                with pytest.raises(LockHeldError, match="has taken over"):
                    first.check()
                second.check()


def hold(url, ready):
    with locked(as_path(url)):
        ready.set()
        time.sleep(600)


def test_a_killed_process_of_this_machine_leaves_it_at_once(path):
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    holder = context.Process(target=hold, args=(os.fspath(path), ready))
    holder.start()
    assert ready.wait(300)
    with pytest.raises(LockHeldError, match=f"process {holder.pid}"), locked(path):
        pass
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    begun = time.monotonic()
    with locked(path):
        assert time.monotonic() - begun < store_lock.PATIENCE / 2


def test_of_several_processes_one_creates_an_object(path):
    barrier = threading.Barrier(4)

    def create(number):
        barrier.wait()
        return stores.create(path, str(number).encode())

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(create, range(4))) == [False, False, False, True]
