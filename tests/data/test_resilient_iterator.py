"""Worker processes that die, hang, or lose their trainer."""

import multiprocessing
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from satmip_jax.data.loaders import TrainBatches
from satmip_jax.data.resilient_iterator import (
    CatchErrors,
    ResilientIterator,
    TaskError,
    WorkersError,
)
from satmip_jax.data.shared_memory import SharedMemoryForbiddenError, WorkerEndedError
from satmip_jax.distributed.sharding import make_mesh
from tests.conftest import REPOSITORY


def children():
    """Process ids of grain's workers."""

    def read(path):
        try:
            return path.read_bytes()
        except (FileNotFoundError, ProcessLookupError):  # a thread or process that ended meanwhile
            return b""

    tasks = Path("/proc/self/task").iterdir()
    pids = [int(pid) for task in tasks for pid in read(task / "children").split()]
    return [pid for pid in pids if b"spawn_main" in read(Path(f"/proc/{pid}/cmdline"))]


needs_proc = pytest.mark.skipif(
    not Path("/proc/self/task").is_dir(), reason="finds child processes in /proc (Linux)"
)


@pytest.mark.slow
@needs_proc
def test_workers_that_die_or_hang_are_restarted_at_the_same_batch(tiny_shards, caplog):
    mesh = make_mesh()
    options = {"batch_size": 16, "seed": 3}
    with TrainBatches(tiny_shards, mesh, **options) as batches:
        whole = [jax.device_get(next(batches)) for _ in range(30)]
    with TrainBatches(tiny_shards, mesh, workers=1, patience=25.0, **options) as batches:
        taken = [jax.device_get(next(batches))]
        os.kill(children()[0], signal.SIGKILL)
        taken += [jax.device_get(next(batches)) for _ in range(14)]  # more than are read ahead
        # reported by grain, or by us if a batch of the dead process was on its way
        reason = "(terminated unexpectedly with exit code -9|ended before its pixels were received)"
        assert re.search(f"process.* {reason}; restarting", caplog.text)
        hanging = children()[0]
        os.kill(hanging, signal.SIGSTOP)
        taken += [jax.device_get(next(batches)) for _ in range(15)]
        assert "no batch for 25 s; restarting" in caplog.text
        assert hanging not in children()
    jax.tree.map(np.testing.assert_array_equal, whole, taken)
    assert not children()


def test_workers_that_die_again_and_again_end_the_run(caplog):
    class Dying:
        def __init__(self, position):
            assert position == 0

        def __next__(self):
            raise RuntimeError("Worker process was terminated unexpectedly with exit code -9.")

        def close(self):
            pass

    with pytest.raises(WorkersError, match=r"4 times in a row.*exit code -9"):
        next(ResilientIterator(Dying))
    assert caplog.text.count("restarting them at the same batch") == 3


class Working:
    """An iterator with a worker process, which starts at the first element."""

    def __init__(self, position):
        self.position, self.process = position, None

    def __next__(self):
        if self.process is None:
            context = multiprocessing.get_context("spawn")
            self.process = context.Process(target=time.sleep, args=(600,), daemon=True)
            self.process.start()
        self.position += 1
        return self.position

    def close(self):
        pass


def test_a_restart_ends_no_worker_of_another_iterator():
    """Otherwise two loaders would end each other's workers at every batch, forever."""
    first, second = ResilientIterator(Working), ResilientIterator(Working)
    try:
        next(first), next(second)
        for one, other in ((first, second), (second, first)):
            before = one._iterator.process
            one.restart()
            assert not before.is_alive()
            assert other._iterator.process.is_alive()
            assert next(one) == 2
    finally:
        first._kill()
        second._kill()
    assert not first._iterator.process.is_alive()


class Once:
    """An iterator that raises an error at one element, the first time only."""

    def __init__(self, error):
        self.error, self.starts, self.position = error, [], 0

    def __call__(self, position):
        self.starts.append(position)
        self.position = position
        return self

    def __next__(self):
        self.position += 1
        if self.position == 3 and self.error is not None:
            error, self.error = self.error, None
            if isinstance(error, TaskError):
                return error
            raise error
        return self.position

    def close(self):
        pass


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("Worker process was terminated unexpectedly with exit code -9. Search ..."),
        EOFError(),  # a pipe that ends
        OSError("got end of file during message"),
        WorkerEndedError("worker process 7 ended before its pixels were received"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_lost_worker_costs_a_restart_and_no_element(error, caplog):
    source = Once(error)
    elements = ResilientIterator(source)
    assert [next(elements) for _ in range(4)] == [1, 2, 3, 4]
    assert source.starts == [0, 2]
    assert caplog.text.count("restarting them at the same batch") == 1
    assert "Search" not in caplog.text


@pytest.mark.parametrize(
    "error",
    [
        TaskError(OSError(5, "Input/output error")),
        TaskError(RuntimeError("cv2 is broken")),
        SharedMemoryForbiddenError("cannot be opened"),
        ZeroDivisionError("a bug"),
    ],
    ids=lambda error: type(getattr(error, "error", error)).__name__,
)
def test_other_errors_are_raised_as_they_are(error, caplog):
    source = Once(error)
    elements = ResilientIterator(source)
    assert [next(elements) for _ in range(2)] == [1, 2]
    with pytest.raises(type(getattr(error, "error", error))):
        next(elements)
    assert source.starts == [0]
    assert not caplog.records


def test_an_error_of_a_task_is_sent_with_its_traceback():
    def decode(number):
        return 1 / number

    assert CatchErrors(decode)(2) == 0.5
    failed = CatchErrors(decode)(0)
    assert isinstance(failed.error, ZeroDivisionError)
    again = pickle.loads(pickle.dumps(failed))
    assert "in decode" in again.error.__notes__[0]


TRAINER = """
import sys, time
from satmip_jax.distributed.sharding import make_mesh
from satmip_jax.data.loaders import TrainBatches
from satmip_jax.data.shard_dataset import ShardDataset
from tests.data.test_resilient_iterator import children

if __name__ == "__main__":
    data = ShardDataset(sys.argv[1], "train")
    with TrainBatches(data, make_mesh(), batch_size=16, seed=0, workers=1) as batches:
        next(batches)
        print(*children(), flush=True)
        time.sleep(600)
"""


@pytest.mark.slow
@needs_proc
def test_workers_end_with_a_trainer_that_is_killed(tiny_shards_dir, tmp_path):
    (tmp_path / "trainer.py").write_text(TRAINER)
    with subprocess.Popen(
        [sys.executable, str(tmp_path / "trainer.py"), str(tiny_shards_dir)],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "XLA_FLAGS": ""},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as trainer:
        pids = [int(pid) for pid in trainer.stdout.readline().split()]
        trainer.kill()
    assert pids
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and any(Path(f"/proc/{pid}").is_dir() for pid in pids):
        time.sleep(0.1)
    assert not [pid for pid in pids if Path(f"/proc/{pid}").is_dir()]
