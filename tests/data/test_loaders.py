"""The order of samples, and the ways that batches come to the device."""

import gc
import subprocess
import sys
from itertools import chain

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from satmip_jax.data import images, shared_memory
from satmip_jax.data.batch_reader import ReadBatch
from satmip_jax.data.loaders import InMemoryBatches, TrainBatches
from satmip_jax.data.sampler import BatchOrder
from satmip_jax.data.shard_format import ShardError
from satmip_jax.distributed.sharding import make_mesh
from satmip_jax.metadata import tabular


@settings(max_examples=30, deadline=None)
@given(
    examples=st.integers(1, 40),
    per_process=st.integers(1, 6),
    processes=st.sampled_from([1, 2, 4]),
    start=st.integers(0, 9),
    seed=st.integers(0, 2**31 - 1),
)
def test_order_is_one_sequence_however_it_is_cut(examples, per_process, processes, start, seed):
    def rows(process, processes, size, start, steps):
        batches = BatchOrder(examples, size, seed, start, process, processes)
        return [batches[i] for i in range(steps)]

    size, steps = per_process * processes, 4
    alone = rows(0, 1, size, 0, start + steps)
    together = [
        list(chain(*parts))
        for parts in zip(
            *(rows(p, processes, size, start, steps) for p in range(processes)), strict=True
        )
    ]
    assert together == alone[start:]
    stream = list(chain(*alone))
    for epoch in range(len(stream) // examples):  # every example once an epoch
        assert sorted(stream[epoch * examples : (epoch + 1) * examples]) == list(range(examples))


def test_the_seed_and_the_epoch_change_the_order():
    def first_two_epochs(seed):
        batches = BatchOrder(50, batch_size=50, seed=seed)
        return batches[0], batches[1]

    one, two = first_two_epochs(0)
    assert one != two
    assert first_two_epochs(1)[0] != one
    assert first_two_epochs(0) == (one, two)


def test_the_order_stays_over_releases():
    """Of this project and of numpy: a run that was begun before an update goes on in its order."""
    order = BatchOrder(examples=50, batch_size=8, seed=0)
    assert order[0] == [14, 17, 29, 44, 10, 48, 40, 4]
    assert order[6] == [25, 20, 40, 27, 17, 21, 39, 46]


def test_a_batch_holds_what_the_records_hold(tiny_shards):
    reader = ReadBatch(tiny_shards, tiny_shards.schema, captions=True)
    batch = reader([5, 0, 63])
    for row, number in enumerate([5, 0, 63]):
        record = tiny_shards[number]
        np.testing.assert_array_equal(batch["image"][row], images.decode(record["image"]))
        assert batch["label"][row] == record["label"]
        one = tabular.encode([record["metadata"]], tiny_shards.schema)
        for name, array in one.items():
            np.testing.assert_array_equal(batch["metadata"][name][row], array[0])
    assert batch["index"].tolist() == [5, 0, 63]
    assert batch["metadata"]["caption"].any(axis=(1, 2)).all()


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


def test_images_that_are_all_broken_are_named(tiny_shards):
    class Broken:
        schema, split, data_dir = tiny_shards.schema, "train", tiny_shards.data_dir

        def __len__(self):
            return len(tiny_shards)

        def __getitem__(self, number):
            return {**tiny_shards[number], "image": b"\xff\xd8 not a JPEG"}

    with pytest.raises(ShardError, match=r"train record 7 .*\n.*" + tiny_shards[7]["id"]):
        ReadBatch(Broken(), tiny_shards.schema)([7])


def test_memory_of_a_process_that_ended_is_named():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    lent = shared_memory.SharedArrayRef(process.pid, 7, (2, 3))
    with pytest.raises(RuntimeError, match=f"process {process.pid} ended before its pixels"):
        shared_memory.SharedArrayReceiver()({"image": lent})


def test_lent_memory_is_used_again_only_when_it_is_given_back():
    shape = (2, 3, 4)
    borrower = shared_memory.SharedArrayReceiver()

    def send(value):
        pixels, lent = shared_memory.lend(shape)
        pixels[...] = value
        del pixels
        return lent, borrower({"image": lent, "label": 7})

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
    gc.collect()  # jax lets go of what it borrowed a little later
    third, again = send(3)
    assert third == first
    assert (again["image"] == 3).all()
