"""One of two processes of test_multihost.py, without a training step to compile.

It saves its rows of three batches from each kind of loader, the records that were read for them,
and values and gradients of the losses. Then it takes steps with the other process until that dies.
"""

import sys
from pathlib import Path

from satmip_jax.distributed import multihost

coordinator, process, heartbeat, data, out = sys.argv[1:]
multihost.start(coordinator, 2, int(process), heartbeat=int(heartbeat))

import jax
import jax.numpy as jnp
import numpy as np

from satmip_jax.data.loaders import InMemoryBatches, TrainBatches
from satmip_jax.data.shard_dataset import ShardDataset
from satmip_jax.distributed.preemption import PreemptionHandler
from satmip_jax.distributed.sharding import make_mesh, to_devices
from satmip_jax.losses.contrastive import EXCHANGES, info_nce, nt_xent, sigmoid_loss


class Watched(ShardDataset):
    """Records the number of each record that is read."""

    read: list[int]

    def __getitem__(self, number):
        self.read.append(int(number))
        return super().__getitem__(number)


def rows(array):
    """Return this process's rows, in the order of the batch."""
    shards = sorted(array.addressable_shards, key=lambda shard: shard.index[0].start)
    return np.concatenate([np.asarray(shard.data) for shard in shards])


mesh = make_mesh()
dataset = Watched(data, "train")
saved = {}
for loader in (InMemoryBatches, TrainBatches):  # the second one reads ahead
    dataset.read = []
    with loader(dataset, mesh, batch_size=16, seed=3, start=2) as batches:
        taken = [next(batches) for _ in range(3)]
    for name in ("index", "image", "label"):
        saved[f"{loader.__name__}.{name}"] = np.stack([rows(batch[name]) for batch in taken])
    saved[f"{loader.__name__}.read"] = np.array(dataset.read)

# one side's gradient and the value of every loss, by every exchange
a, b = np.random.default_rng(0).normal(size=(2, 16, 12)).astype(np.float32)
half = slice(int(process) * 8, int(process) * 8 + 8)
spread = to_devices((a[half], b[half]), mesh)
scale, bias = jnp.float32(10.0), jnp.float32(-3.0)
for exchange in EXCHANGES:
    for name, loss in {
        "info_nce": lambda a, b, e=exchange: info_nce(a, b, scale, mesh, e)[0],
        "nt_xent": lambda a, b, e=exchange: nt_xent(a, b, 0.1, mesh, e)[0],
        "sigmoid": lambda a, b, e=exchange: sigmoid_loss(a, b, scale, bias, mesh, e)[0],
    }.items():
        value, gradient = jax.jit(jax.value_and_grad(loss))(*spread)
        saved[f"{name}.{exchange}.value"] = np.asarray(value)
        saved[f"{name}.{exchange}.gradient"] = rows(gradient)
np.savez(Path(out) / f"{process}.tmp.npz", **saved)
(Path(out) / f"{process}.tmp.npz").rename(Path(out) / f"{process}.npz")

with PreemptionHandler(mesh) as stop:
    while True:
        stop.after_step()
