"""One of two processes of tests/test_processes.py, without a training step to compile.

Saves its rows of three batches from each kind of loader and the records that were read for them;
then steps along with the other process until that one dies.
"""

import sys
from pathlib import Path

from satmip_jax import processes

coordinator, process, heartbeat, data, out = sys.argv[1:]
processes.start(coordinator, 2, int(process), heartbeat=int(heartbeat))

import numpy as np  # noqa: E402

from satmip_jax import parallel  # noqa: E402
from satmip_jax.pipeline import InMemoryBatches, TrainBatches  # noqa: E402
from satmip_jax.shards import ShardDataset  # noqa: E402
from satmip_jax.stopping import StopSignal  # noqa: E402


class Watched(ShardDataset):
    """Notes the number of each record that is read."""

    read: list[int]

    def __getitem__(self, number):
        self.read.append(int(number))
        return super().__getitem__(number)


def rows(array):
    """This process's rows, in the order of the batch."""
    shards = sorted(array.addressable_shards, key=lambda shard: shard.index[0].start)
    return np.concatenate([np.asarray(shard.data) for shard in shards])


mesh = parallel.make_mesh()
dataset = Watched(data, "train")
saved = {}
for loader in (InMemoryBatches, TrainBatches):  # the second one reads ahead
    dataset.read = []
    with loader(dataset, mesh, batch_size=16, seed=3, start=2) as batches:
        taken = [next(batches) for _ in range(3)]
    for name in ("index", "image", "label"):
        saved[f"{loader.__name__}.{name}"] = np.stack([rows(batch[name]) for batch in taken])
    saved[f"{loader.__name__}.read"] = np.array(dataset.read)
np.savez(Path(out) / f"{process}.tmp.npz", **saved)
(Path(out) / f"{process}.tmp.npz").rename(Path(out) / f"{process}.npz")

with StopSignal(mesh) as stop:
    while True:
        stop.after_step()
