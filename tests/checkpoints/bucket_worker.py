"""One of two processes of test_bucket.py that share checkpoints; nothing is compiled."""

import sys

from satmip_jax.distributed import multihost

coordinator, process, workdir, schema = sys.argv[1:]
multihost.start(coordinator, 2, int(process))

import jax
import numpy as np

from satmip_jax.checkpoints.manager import Checkpoints
from satmip_jax.config.defaults import default_config
from satmip_jax.distributed.sharding import batch_sharding, make_mesh, replicated
from satmip_jax.metadata.schema import Schema
from satmip_jax.training.workdir import lock_workdir, training_folder

mesh = make_mesh()
values = np.arange(64, dtype=np.float32).reshape(16, 4)


def state(step):
    """Return a state of which each process holds a part."""
    place = {"kernel": batch_sharding(mesh), "bias": replicated(mesh)}
    return {
        name: jax.make_array_from_callback(values.shape, sharding, lambda i: (values + step)[i])
        for name, sharding in place.items()
    }


folder = training_folder(workdir)
with lock_workdir(folder), Checkpoints(folder, keep=1) as checkpoints:
    for step in (1, 2, 3):
        checkpoints.save(step, state(step), default_config(), Schema.load(schema))
        checkpoints.wait()
abstract = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state(0)
)
with Checkpoints(folder, read_only=True) as checkpoints:
    restored = checkpoints.restore(abstract)
    for name, leaf in restored.items():
        for shard in leaf.addressable_shards:
            np.testing.assert_array_equal(shard.data, (values + 3)[shard.index], err_msg=name)
    print("checkpoints", sorted(checkpoints._steps()), flush=True)
