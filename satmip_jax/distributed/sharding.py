"""The device mesh, and the sharding of batches and of the training state.

The mesh has two axes, `data` and `fsdp`. Batches are sharded along both. Parameters and optimizer
state are sharded along `fsdp` by ordered rules and replicated along `data`. With `fsdp` of 1, the
default, the state is replicated on all devices.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from satmip_jax.distributed.device_mesh import arrange
from satmip_jax.errors import ConfigError

DATA, FSDP = "data", "fsdp"
BATCH = (DATA, FSDP)  # the axes along which batches are sharded

# The first pattern that matches the name of a leaf ("params.image_encoder.blocks.mlp.fc1.kernel")
# gives the dimension that is sharded along `fsdp`, or None. The optimizer's moments have the names
# of their parameters.
RULES: tuple[tuple[str, int | None], ...] = (
    (r"(^|\.)metadata_encoder\.", None),  # a few MB: not worth an all-gather
    (r"\.kernel$", -2),  # inputs of a matrix, in stacked blocks too
    (r"\.(bias|scale|position|cls)$", None),
    (r"(^|\.)(log_scale|logit_bias|step|count)$", None),
)


def make_mesh(devices: Sequence[jax.Device] | None = None, *, fsdp: int = 1) -> Mesh:
    """Return the mesh over all devices of all processes, or over `devices`.

    Groups of `fsdp` lie within a TPU slice or a host of GPUs where they fit, see `device_mesh`.

    Args:
        devices: devices of the mesh.
        fsdp: size of the axis along which the state is sharded.

    Raises:
        ConfigError: `fsdp` does not divide the number of devices, or is neither a divisor nor a
            multiple of those of a slice or host.

    Example:
        >>> from satmip_jax.distributed.sharding import make_mesh
        >>> dict(make_mesh(fsdp=2).shape)  # on 8 devices
        {'data': 4, 'fsdp': 2}
    """
    devices = jax.devices() if devices is None else devices
    # Auto: the compiler infers shardings between those given; jax.make_mesh defaults to Explicit
    return Mesh(
        arrange(devices, mesh_shape(len(devices), fsdp)), BATCH, axis_types=(AxisType.Auto,) * 2
    )


def mesh_shape(devices: int, fsdp: int) -> tuple[int, int]:
    """Return the sizes of the axes `data` and `fsdp`.

    Raises:
        ConfigError: `fsdp` does not divide the number of devices.
    """
    if fsdp < 1 or devices % fsdp:
        divisors = [n for n in range(1, devices + 1) if devices % n == 0]
        raise ConfigError(
            f"config.parallel.fsdp is {fsdp}, which does not divide the {devices} devices: use one "
            f"of {', '.join(map(str, divisors))}"
        )
    return devices // fsdp, fsdp


def replicated(mesh: Mesh) -> NamedSharding:
    """Return the sharding of replicated arrays: statistics, metrics, features."""
    return NamedSharding(mesh, P())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Return the sharding of batches: the leading axis is divided among all devices."""
    return NamedSharding(mesh, P(BATCH))


def state_sharding(
    abstract: Any, mesh: Mesh | AbstractMesh, rules: Sequence[tuple[str, int | None]] = RULES
) -> tuple[Any, list[str]]:
    """Return the shardings of a training state by the rules.

    A leaf whose dimension `fsdp` does not divide is replicated.

    Args:
        abstract: pytree of arrays or of their shapes.
        mesh: mesh with the axes `data` and `fsdp`.
        rules: (pattern, dimension) in order; the first match counts.

    Returns:
        The pytree of `NamedSharding`, and notes for the user: leaves that no rule matches, and
        leaves that `fsdp` does not divide.

    Example:
        >>> from satmip_jax.distributed.sharding import make_mesh, state_sharding
        >>> state = {"kernel": jax.ShapeDtypeStruct((6, 4), jnp.float32)}
        >>> shardings, notes = state_sharding({"params": {"fc": state}}, make_mesh(fsdp=2))
        >>> tuple(shardings["params"]["fc"]["kernel"].spec), notes
        (('fsdp', None), [])
    """
    size, notes = mesh.shape[FSDP], []

    def sharding(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        name = leaf_name(path)
        matches = [dimension for pattern, dimension in rules if re.search(pattern, name)]
        spec: list[str | None] = [None] * len(leaf.shape)
        if not matches:
            notes.append(f"no sharding rule matches {name}: it is replicated on every device")
        elif (dimension := matches[0]) is not None and size > 1:
            if leaf.shape[dimension] % size == 0:
                spec[dimension] = FSDP
            else:
                notes.append(
                    f"dimension {dimension} of {name} {[*leaf.shape]} is not a multiple of "
                    f"fsdp={size}: it is replicated on every device"
                )
        return NamedSharding(mesh, P(*spec))

    shardings = jax.tree_util.tree_map_with_path(sharding, abstract)
    return shardings, notes


def shapes_with_shardings(shapes: Any, mesh: Mesh) -> Any:
    """Attach the shardings of `RULES` to the shapes of a training state or of a part of it.

    Args:
        shapes: pytree of `jax.ShapeDtypeStruct`, as from `jax.eval_shape`.
        mesh: from `make_mesh`.

    Returns:
        The same pytree, each leaf with its `NamedSharding`.
    """
    return jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        shapes,
        state_sharding(shapes, mesh)[0],
    )


def leaf_name(path: Sequence[Any]) -> str:
    """Return the dotted name of a leaf, such as "params.image_encoder.norm.scale".

    Args:
        path: key path of `jax.tree_util`.
    """

    def name(key: Any) -> str:
        return str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key))))

    return ".".join(map(name, path))


def check_batch_size(
    batch_size: int, devices: int, micro_batch: int = 0, examples: int | None = None
) -> None:
    """Check that the global batch is a multiple of the devices, and of micro-batches on each.

    Args:
        batch_size: global batch size.
        devices: number of devices.
        micro_batch: images of a micro-batch on one device; 0 for no micro-batches.
        examples: images in the train split, which a batch must not exceed; None for any number.

    Raises:
        ConfigError: it is not; the message names sizes that are.
    """
    largest = batch_size + devices if examples is None else examples // devices * devices
    if not largest:
        raise ConfigError(
            f"the train split has {examples} images, fewer than the {devices} devices: use fewer "
            "devices or more images"
        )
    if examples is not None and batch_size > examples:
        raise ConfigError(
            f"config.optimizer.batch_size is {batch_size}, and the train split has {examples} "
            f"images: a batch would contain duplicates; use at most {largest}"
        )
    if batch_size % devices:
        smaller = batch_size // devices * devices
        sizes = [n for n in (smaller, smaller + devices) if 0 < n <= largest]
        raise ConfigError(
            f"config.optimizer.batch_size is {batch_size}, which is not a multiple of the "
            f"{devices} devices: use {' or '.join(map(str, sizes))}"
        )
    local = batch_size // devices
    if micro_batch and local % micro_batch:
        fitting = max(n for n in range(1, min(micro_batch, local) + 1) if local % n == 0)
        raise ConfigError(
            f"config.parallel.micro_batch is {micro_batch}, which does not divide the {local} "
            f"images of a batch on each device: use {fitting}, or 0 for no micro-batches"
        )


def process_rows(mesh: Mesh, rows: int, process: int | None = None) -> np.ndarray:
    """Return the rows of a global batch that the devices of a process hold, each once, ascending.

    They need not be contiguous: `make_mesh` orders the devices of a TPU slice by its topology, so
    that neighbours in a batch may belong to different hosts.

    Args:
        mesh: all devices of all processes.
        rows: of the global batch, a multiple of the number of devices.
        process: index of the process; by default this one.

    Returns:
        int64 (n,).

    Example:
        >>> from satmip_jax.distributed.sharding import make_mesh, process_rows
        >>> process_rows(make_mesh(), 16).tolist()
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]
    """
    process = jax.process_index() if process is None else process
    by_device: Mapping[Any, Any] = batch_sharding(mesh).devices_indices_map((rows,))
    parts = [
        np.arange(rows)[index]
        for device, index in by_device.items()
        if device.process_index == process
    ]
    return np.unique(np.concatenate(parts)) if parts else np.arange(0)


def to_devices(batch: Any, mesh: Mesh) -> Any:
    """Place a batch on the mesh, sharded along its leading axis.

    Args:
        batch: pytree of NumPy arrays: this process's rows of the global batch, see `process_rows`.
        mesh: all devices of all processes.

    Returns:
        The pytree of global arrays.
    """
    sharding = batch_sharding(mesh)
    return jax.tree.map(
        lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), batch
    )
