"""Loaders: the same batches from threads, worker processes and device memory."""

import builtins

import jax
import numpy as np
import pytest

from satmip_jax.data.loaders import InMemoryBatches, TrainBatches
from satmip_jax.data.shard_dataset import ShardDataset
from satmip_jax.distributed.sharding import make_mesh


@pytest.mark.parametrize("captions", [False, True])
def test_threads_processes_and_memory_give_the_same_batches(tiny_shards, captions):
    mesh = make_mesh()
    options = {"batch_size": 24, "seed": 3, "start": 2, "captions": captions}

    def take(batches):
        with batches:
            return [jax.device_get(next(batches)) for _ in range(4)]

    threads = take(TrainBatches(tiny_shards, mesh, workers=0, **options))
    memory = take(InMemoryBatches(tiny_shards, mesh, **options))
    jax.tree.map(np.testing.assert_array_equal, threads, memory)
    if not captions:  # starting processes takes seconds
        workers = take(TrainBatches(tiny_shards, mesh, workers=2, **options))
        jax.tree.map(np.testing.assert_array_equal, threads, workers)


@pytest.mark.slow
def test_pixels_come_through_pipes_where_shared_memory_is_forbidden(
    tiny_shards, caplog, monkeypatch
):
    mesh = make_mesh()
    options = {"batch_size": 24, "seed": 3}
    opened = builtins.open

    def forbidden(path, *arguments, **more):
        if str(path).startswith("/proc/") and "/fd/" in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *arguments, **more)

    with TrainBatches(tiny_shards, mesh, **options) as batches:
        expected = [jax.device_get(next(batches)) for _ in range(3)]
    monkeypatch.setattr(builtins, "open", forbidden)
    with TrainBatches(tiny_shards, mesh, workers=1, **options) as batches:
        received = [jax.device_get(next(batches)) for _ in range(3)]
    jax.tree.map(np.testing.assert_array_equal, expected, received)
    assert caplog.text.count("worker processes send pixels through pipes instead") == 1
    assert "restarting" not in caplog.text  # no worker is taken for dead


class FailingDisk(ShardDataset):
    """A split on a disk that fails at one record."""

    def __getitem__(self, index):
        if int(index) == self.bad:
            raise OSError(5, "Input/output error", "/disk/shard")
        return super().__getitem__(index)


@pytest.mark.slow
def test_an_error_of_decoding_keeps_its_message(tiny_shards_dir, caplog):
    """It is no dead worker: restarts would only repeat and hide it."""
    dataset = FailingDisk(tiny_shards_dir, "train")
    dataset.bad = 44
    with (
        pytest.raises(OSError, match="Input/output error: '/disk/shard'") as caught,
        TrainBatches(dataset, make_mesh(), batch_size=16, seed=3, workers=1) as batches,
    ):
        list(zip(range(4), batches, strict=False))
    assert "__getitem__" in caught.value.__notes__[0]
    assert "restarting" not in caplog.text
