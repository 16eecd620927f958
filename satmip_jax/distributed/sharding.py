"""Devices: the mesh, and what is spread over it.

Two axes, `data` and `fsdp`. A batch is cut along both; parameters and optimiser state are cut
along `fsdp` by ordered rules and copied along `data`. With `fsdp` of 1, the default, every device
holds the whole state.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from satmip_jax.errors import ConfigError

DATA, FSDP = "data", "fsdp"
BATCH = (DATA, FSDP)  # the axes that a batch is cut along

# The first pattern found in the name of a leaf ("params.image_encoder.blocks.mlp.fc1.kernel") says
# which of its dimensions is cut along `fsdp`. The optimiser's moments carry the names of the
# parameters they belong to.
RULES: tuple[tuple[str, int | None], ...] = (
    (r"(^|\.)metadata_encoder\.", None),  # a few MB: not worth gathering
    (r"\.kernel$", -2),  # the inputs of a matrix, also in stacked blocks
    (r"\.(bias|scale|position|cls)$", None),
    (r"(^|\.)(log_scale|logit_bias|step|count)$", None),
)


def make_mesh(devices: Sequence[jax.Device] | None = None, *, fsdp: int = 1) -> Mesh:
    """Return the mesh over all devices of all processes (or over `devices`).

    Raises:
        ConfigError: `fsdp` does not divide the number of devices.

    Example:
        >>> make_mesh(fsdp=2).shape  # on 8 devices
        {'data': 4, 'fsdp': 2}
    """
    devices = jax.devices() if devices is None else devices
    # NamedSharding with the compiler filling in the rest: jax.make_mesh would default to Explicit.
    return jax.make_mesh(
        mesh_shape(len(devices), fsdp), BATCH, axis_types=(AxisType.Auto,) * 2, devices=devices
    )


def mesh_shape(devices: int, fsdp: int) -> tuple[int, int]:
    """Sizes of the axes `data` and `fsdp`.

    Raises:
        ConfigError: `fsdp` does not divide the number of devices.
    """
    if fsdp < 1 or devices % fsdp:
        fitting = [n for n in range(1, devices + 1) if devices % n == 0]
        raise ConfigError(
            f"config.parallel.fsdp is {fsdp}, which does not divide the {devices} devices: use one "
            f"of {', '.join(map(str, fitting))}"
        )
    return devices // fsdp, fsdp


def replicated(mesh: Mesh) -> NamedSharding:
    """Sharding of what every device holds whole: statistics, metrics, features."""
    return NamedSharding(mesh, P())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Sharding of batches: the leading axis is cut along all devices."""
    return NamedSharding(mesh, P(BATCH))


def state_sharding(
    abstract: Any, mesh: Mesh | AbstractMesh, rules: Sequence[tuple[str, int | None]] = RULES
) -> tuple[Any, list[str]]:
    """Shardings of a training state (a pytree of arrays or their shapes) by the rules.

    A dimension that `fsdp` does not divide stays whole.

    Returns:
        The pytree of `NamedSharding`, and what a user may want to know: leaves that no rule names,
        and those that do not divide.

    Example:
        >>> shardings, notes = state_sharding(jax.eval_shape(init), mesh)
    """
    size, notes = mesh.shape[FSDP], []

    def sharding(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        name = leaf_name(path)
        found = [dimension for pattern, dimension in rules if re.search(pattern, name)]
        spec: list[str | None] = [None] * len(leaf.shape)
        if not found:
            notes.append(f"no rule names {name}: it is copied to every device")
        elif (dimension := found[0]) is not None and size > 1:
            if leaf.shape[dimension] % size == 0:
                spec[dimension] = FSDP
            else:
                notes.append(
                    f"{name} {[*leaf.shape]} does not divide by fsdp={size} in dimension "
                    f"{dimension}: it is copied to every device"
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
    """Dotted name of a leaf: "params.image_encoder.norm.scale"."""

    def name(key: Any) -> str:
        return str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key))))

    return ".".join(map(name, path))


def check_batch_size(batch_size: int, devices: int, micro_batch: int = 0) -> None:
    """Raise ConfigError unless the global batch divides by the devices, and into micro-batches."""
    if batch_size % devices:
        smaller = batch_size // devices * devices
        advice = f"{smaller} or {smaller + devices}" if smaller else f"{devices}"
        raise ConfigError(
            f"config.optimizer.batch_size is {batch_size}, which does not divide by the "
            f"{devices} devices: use {advice}"
        )
    local = batch_size // devices
    if micro_batch and local % micro_batch:
        fitting = max(n for n in range(1, min(micro_batch, local) + 1) if local % n == 0)
        raise ConfigError(
            f"config.parallel.micro_batch is {micro_batch}, and a device has {local} images of a "
            f"batch, which is no multiple of it: use {fitting}, or 0 for no micro-batches"
        )


def to_devices(batch: Any, mesh: Mesh) -> Any:
    """Lay this process's rows of a batch (a pytree of numpy arrays) out over the mesh.

    Each process gives its own contiguous rows, in the order of the processes.
    """
    sharding = batch_sharding(mesh)
    return jax.tree.map(
        lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), batch
    )
