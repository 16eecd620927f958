"""Decoding processes that die, hang, or lose their trainer."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from satmip_jax.data import resilient_iterator
from satmip_jax.data.loaders import TrainBatches
from satmip_jax.data.resilient_iterator import WorkersError
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
def test_workers_that_die_or_hang_are_started_again_at_the_same_batch(tiny_shards, caplog):
    mesh = make_mesh()
    options = {"batch_size": 16, "seed": 3}
    with TrainBatches(tiny_shards, mesh, **options) as batches:
        whole = [jax.device_get(next(batches)) for _ in range(30)]
    with TrainBatches(tiny_shards, mesh, workers=1, patience=40.0, **options) as batches:
        taken = [jax.device_get(next(batches))]
        os.kill(children()[0], signal.SIGKILL)
        taken += [jax.device_get(next(batches)) for _ in range(14)]  # more than are read ahead
        # said by grain, or by us where a batch of the dead process was still on its way
        said = "(terminated unexpectedly with exit code -9|ended before its pixels were taken)"
        assert re.search(f"process.* {said}; started again", caplog.text)
        hanging = children()[0]
        os.kill(hanging, signal.SIGSTOP)
        taken += [jax.device_get(next(batches)) for _ in range(15)]
        assert "no batch for 40 s; started again" in caplog.text
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
        next(resilient_iterator.ResilientIterator(Dying))
    assert caplog.text.count("started again at the same batch") == 3


TRAINER = """
import sys, time
from satmip_jax import parallel
from satmip_jax.data.loaders import TrainBatches
from satmip_jax.data.shard_dataset import ShardDataset
from tests.data.test_resilient_iterator import children

if __name__ == "__main__":
    data = ShardDataset(sys.argv[1], "train")
    with TrainBatches(data, parallel.make_mesh(), batch_size=16, seed=0, workers=1) as batches:
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
