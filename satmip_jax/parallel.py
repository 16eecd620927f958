"""Devices: the mesh, and which arrays are spread over it.

One axis, `data`: the batch is cut along it, parameters are copied to every device.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

DATA = "data"


def make_mesh(devices: list[jax.Device] | None = None) -> Mesh:
    """Return a one-axis mesh over all devices of all processes (or over `devices`)."""
    devices = jax.devices() if devices is None else devices
    # NamedSharding with the compiler filling in the rest: jax.make_mesh would default to Explicit.
    return jax.make_mesh((len(devices),), (DATA,), axis_types=(AxisType.Auto,), devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """Sharding of what every device holds whole: parameters, statistics, metrics."""
    return NamedSharding(mesh, P())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Sharding of batches: the leading axis is cut along `data`."""
    return NamedSharding(mesh, P(DATA))


def check_batch_size(batch_size: int, mesh: Mesh) -> None:
    """Raise ValueError unless the global batch divides by the devices and the processes."""
    devices = mesh.size
    if batch_size % devices:
        smaller = batch_size // devices * devices
        advice = f"{smaller} or {smaller + devices}" if smaller else f"{devices}"
        raise ValueError(
            f"config.optimizer.batch_size is {batch_size}, which does not divide by the "
            f"{devices} devices: use {advice}"
        )


def to_devices(batch: Any, mesh: Mesh) -> Any:
    """Lay this process's rows of a batch (a pytree of numpy arrays) out over the mesh.

    Each process gives its own contiguous rows, in the order of the processes.
    """
    sharding = batch_sharding(mesh)
    return jax.tree.map(
        lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), batch
    )


def is_main_process() -> bool:
    """True on the one process that prints, logs and writes results."""
    return jax.process_index() == 0
