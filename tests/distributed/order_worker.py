"""A process of test_device_order.py: its devices lie between those of others along the batch.

Saves the batches of both loaders, features of a split with bad records, a loss by every exchange,
and the records that were read; the main test does the same in one process.
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh

from satmip_jax.config.conversion import from_json
from satmip_jax.data.bad_records import BadRecords
from satmip_jax.data.loaders import InMemoryBatches, TrainBatches
from satmip_jax.data.shard_dataset import ShardDataset
from satmip_jax.data.shard_format import ShardError
from satmip_jax.distributed import multihost
from satmip_jax.distributed.preemption import LAG, PreemptionHandler
from satmip_jax.distributed.sharding import BATCH, process_rows, replicated, to_devices
from satmip_jax.evaluation.features import extract
from satmip_jax.evaluation.model import Model
from satmip_jax.losses.contrastive import EXCHANGES, info_nce
from satmip_jax.training.step import build_program


class Watched(ShardDataset):
    """A split with bad records; notes the number of each record that is read."""

    BAD = (3, 30, 41)
    read: list[int]

    def __getitem__(self, number):
        self.read.append(int(number))
        if number in self.BAD:
            raise ShardError(f"record {number}: damaged")
        return super().__getitem__(number)


def results(mesh, data, config) -> dict[str, np.ndarray]:
    """Batches, features and losses; global arrays, the same on every process."""
    dataset, saved = Watched(data, "train"), {}

    def fetch(array):
        return jax.device_get(jax.device_put(array, replicated(mesh)))

    for loader in (InMemoryBatches, TrainBatches):
        dataset.read = []
        with loader(
            dataset, mesh, batch_size=16, seed=3, start=2, bad_records=BadRecords("train")
        ) as batches:
            if loader is InMemoryBatches:
                saved["read"] = np.array(dataset.read)
            taken = [next(batches) for _ in range(6)]
        for name in ("index", "image", "label"):
            saved[f"{loader.__name__}.{name}"] = np.stack([fetch(b[name]) for b in taken])

    program = build_program(config, dataset.schema, len(dataset), mesh)
    model = Model(config, dataset.schema, program.towers, program.init().params, mesh)
    features = extract(model, dataset, limit=50)
    saved |= {f"features.{kind}": x for kind, x in features.by_kind.items()}
    saved |= {"labels": features.labels, "indices": features.indices}

    a, b = np.random.default_rng(0).normal(size=(2, 16, 12)).astype(np.float32)
    rows = process_rows(mesh, 16)
    pair = to_devices((a[rows], b[rows]), mesh)
    for exchange in EXCHANGES:
        loss = jax.jit(lambda a, b, e=exchange: info_nce(a, b, jnp.float32(10.0), mesh, e)[0])
        saved[f"loss.{exchange}"] = np.asarray(loss(*pair))
    return saved


def main() -> None:
    coordinator, processes, process, layout, data, config, out = sys.argv[1:]
    multihost.start(coordinator, int(processes), int(process))
    devices = np.array([jax.devices()[int(number)] for number in layout.split(",")])
    mesh = Mesh(devices.reshape(-1, 1), BATCH, axis_types=(AxisType.Auto,) * 2)
    saved = results(mesh, data, from_json(Path(config).read_text()))
    with PreemptionHandler(mesh) as stop:  # one process is signalled, all of them stop
        if process == "1":
            stop._note(15, None)
        stopped = [stop.after_step() for _ in range(LAG + 1)]
    np.savez(Path(out) / f"{process}.npz", **saved, stopped=np.array(str(stopped[-1])))


if __name__ == "__main__":
    main()
