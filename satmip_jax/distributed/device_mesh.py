"""Order of the devices in a mesh, by the networks that connect them.

Devices of a TPU slice are linked to each other (ICI), as are the GPUs of a host (NVLink). Such a
set is a *granule*, in JAX's words; between granules is the slower network of the data center (DCN).
The axis `fsdp`, whose groups gather parameters in every layer, lies within a granule wherever its
size allows it, and the axis `data`, along which gradients are summed once per step, across them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jax.experimental.mesh_utils import create_device_mesh, create_hybrid_device_mesh
from jax.sharding import Mesh

from satmip_jax.errors import ConfigError


@dataclass(frozen=True)
class Granules:
    """Equal sets of devices with fast links, which a slower network connects.

    Attributes:
        unit: "slice" or "host".
        count: number of granules.
        size: devices of each.
    """

    unit: str
    count: int
    size: int

    @classmethod
    def of(cls, devices: Sequence[Any]) -> Granules:
        """Find the granules of devices: slices if there are several, else hosts.

        A single slice of TPUs is one granule, whatever the number of its hosts.

        Args:
            devices: that form a mesh; they need not be here.

        Raises:
            ConfigError: slices of different sizes.
        """
        unit = "slice"
        keys = [getattr(device, "slice_index", None) or 0 for device in devices]
        if len(set(keys)) == 1 and devices[0].platform != "tpu":
            unit, keys = "host", [device.process_index for device in devices]
        sizes = np.unique(keys, return_counts=True)[1]
        if len(set(sizes)) == 1:
            return cls(unit, len(sizes), int(sizes[0]))
        if unit == "host":  # an irregular cluster: the order of the processes is as good as any
            return cls(unit, 1, len(devices))
        raise ConfigError(
            f"the slices have different numbers of devices ({', '.join(map(str, sizes))}): "
            "use slices of one topology"
        )

    @property
    def network(self) -> str:
        """The network between them."""
        return "DCN" if self.unit == "slice" else "the network"


def arrange(devices: Sequence[Any], shape: tuple[int, int]) -> np.ndarray:
    """Return the devices as an array of `data` x `fsdp`.

    Args:
        devices: all of a mesh; they need not be here.
        shape: sizes of the axes `data` and `fsdp`.

    Raises:
        ConfigError: groups of `fsdp` would lie across parts of two granules.
    """
    data, fsdp = shape
    granules = Granules.of(devices)
    if granules.count == 1:
        return create_device_mesh(shape, devices, allow_split_physical_axes=True)
    if granules.size % fsdp == 0:
        within, across = (granules.size // fsdp, fsdp), (granules.count, 1)
    elif fsdp % granules.size == 0:
        within, across = (1, granules.size), (data, fsdp // granules.size)
    else:
        divisors = [n for n in range(1, granules.size + 1) if granules.size % n == 0]
        raise ConfigError(
            f"config.parallel.fsdp is {fsdp}, and a {granules.unit} has {granules.size} devices: "
            f"groups would consist of parts of several {granules.unit}s. Use one of "
            f"{', '.join(map(str, divisors))}, or a multiple of {granules.size}"
        )
    return create_hybrid_device_mesh(
        within,
        across,
        devices,
        process_is_granule=granules.unit == "host",
        allow_split_physical_axes=True,
    )


def describe_mesh(mesh: Mesh) -> str:
    """Return the sizes of the axes, and the network along each.

    Example:
        >>> from satmip_jax.distributed.device_mesh import describe_mesh
        >>> from satmip_jax.distributed.sharding import make_mesh
        >>> describe_mesh(make_mesh(fsdp=2))  # on 8 devices of one host
        'data 4 x fsdp 2; all within a host'
    """
    (data, fsdp), granules = mesh.devices.shape, Granules.of(list(mesh.devices.flat))
    unit, network = granules.unit, granules.network
    shape = f"data {data} x fsdp {fsdp}; "
    if granules.count == 1:
        return f"{shape}all within a {unit}"
    if fsdp == 1:
        return f"{shape}data across {granules.count} {unit}s over {network}"
    if fsdp <= granules.size:
        return f"{shape}fsdp within a {unit}, data across {granules.count} {unit}s over {network}"
    return f"{shape}each fsdp group across {fsdp // granules.size} {unit}s over {network}"


def mesh_advice(mesh: Mesh) -> str:
    """Return what to do about groups of `fsdp` that a slow network crosses; "" if none are."""
    fsdp, granules = mesh.devices.shape[1], Granules.of(list(mesh.devices.flat))
    if granules.count == 1 or fsdp <= granules.size:
        return ""
    unit = granules.unit
    return (
        f"config.parallel.fsdp is {fsdp}, and a {unit} has {granules.size} devices: the "
        f"parameters of every layer are gathered over {granules.network}, in each pass. "
        f"fsdp={granules.size} stays within a {unit}; if memory does not suffice then, "
        "config.parallel.micro_batch or config.image.remat=True may make room instead"
    )


def rows_by_process(mesh: Mesh, rows: int) -> dict[int, np.ndarray]:
    """Return the rows of a global batch that each process reads, ascending, by process.

    Args:
        mesh: from `make_mesh`; its devices need not be here.
        rows: of the global batch, a multiple of the number of devices.

    Returns:
        int64 (n,) for each process.
    """
    processes = [device.process_index for device in mesh.devices.flat]
    of_row = np.repeat(processes, rows // mesh.size)
    return {process: np.flatnonzero(of_row == process) for process in sorted(set(processes))}


def row_blocks(rows: np.ndarray) -> list[tuple[int, int]]:
    """Return ascending rows as blocks (first, last) without gaps.

    Example:
        >>> from satmip_jax.distributed.device_mesh import row_blocks
        >>> row_blocks(np.array([0, 1, 2, 8, 9]))
        [(0, 2), (8, 9)]
    """
    parts = np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1)
    return [(int(part[0]), int(part[-1])) for part in parts]


def describe_rows(rows: np.ndarray, most: int = 3) -> str:
    """Return the number of rows and their first blocks.

    Args:
        rows: ascending.
        most: number of blocks to list.

    Example:
        >>> from satmip_jax.distributed.device_mesh import describe_rows
        >>> describe_rows(np.array([0, 1, 2, 8, 9]))
        '5 rows: 0-2, 8-9'
    """
    blocks = row_blocks(rows)
    shown = [f"{first}-{last}" for first, last in blocks[:most]]
    if len(blocks) > most:
        shown.append(f"... ({len(blocks)} blocks)")
    return f"{len(rows):,} rows: {', '.join(shown)}"
