"""Devices of a slice or cluster that is not here, with their places and hosts.

They need no compiler: enough for the mesh, and for which host reads which rows. Coordinates,
processes and slices are those of libtpu's topologies; tests compare them where it is installed.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from satmip_jax.planning.accelerators import Accelerator
from satmip_jax.planning.topology import AcceleratorError, gpu_topology, topology_sizes

CHIPS_PER_HOST = (2, 2, 1)  # of a slice of TPUs on several hosts


@dataclass(frozen=True)
class PlannedDevice:
    """A device that is not here, with the attributes of `jax.Device` that a mesh depends on."""

    id: int
    process_index: int
    platform: str
    device_kind: str
    coords: tuple[int, ...] = (0, 0, 0)
    core_on_chip: int = 0
    slice_index: int = 0


def planned_devices(
    accelerator: Accelerator, topology: str = "", slices: int = 1
) -> list[PlannedDevice]:
    """Return the devices of a topology.

    Args:
        accelerator: their kind.
        topology: of GPUs their number, or slices x hosts x GPUs per host; of TPUs the shape of a
            slice, such as "4x4". "" for one device.
        slices: of TPUs, each of this topology.

    Raises:
        AcceleratorError: there is no such topology.

    Example:
        >>> from satmip_jax.planning.accelerators import ACCELERATORS
        >>> from satmip_jax.planning.planned_devices import planned_devices
        >>> [device.process_index for device in planned_devices(ACCELERATORS["v5e"], "2x4")]
        [0, 0, 0, 0, 1, 1, 1, 1]
    """
    if accelerator.gpu:
        return _gpus(accelerator, topology_sizes(topology))
    bounds = _slice_bounds(accelerator, topology)
    hosts = [max(1, bound // chips) for bound, chips in zip(bounds, CHIPS_PER_HOST, strict=True)]
    chips_here = [bound // host for bound, host in zip(bounds, hosts, strict=True)]
    devices = []
    for slice_index in range(slices):
        for host, place in enumerate(_places(hosts)):
            for chip in _places(chips_here):
                x, y, z = (h * n + c for h, n, c in zip(place, chips_here, chip, strict=True))
                devices.append(
                    PlannedDevice(
                        id=slice_index * math.prod(bounds) + x + bounds[0] * (y + bounds[1] * z),
                        process_index=slice_index * math.prod(hosts) + host,
                        platform="tpu",
                        device_kind=accelerator.kinds[0],
                        coords=(x, y, z),
                        slice_index=slice_index,
                    )
                )
    return devices


def planned_hosts(devices: int, hosts: int, kind: str = "cpu") -> list[PlannedDevice]:
    """Return devices of several hosts, in order.

    Args:
        devices: their number.
        hosts: over which they are divided, as evenly as possible.
        kind: platform and name of the device.
    """
    per_host = math.ceil(devices / hosts)
    return [PlannedDevice(n, n // per_host, kind, kind) for n in range(devices)]


def _places(bounds: list[int]) -> list[tuple[int, int, int]]:
    """Return the coordinates within bounds, x fastest."""
    x, y, z = map(range, bounds)
    return [(i, j, k) for k, j, i in itertools.product(z, y, x)]


def _slice_bounds(accelerator: Accelerator, topology: str) -> list[int]:
    """Return the chips along x, y and z."""
    sizes = topology_sizes(topology) or [1] * accelerator.dimensions
    if len(sizes) != accelerator.dimensions:
        example = "4x4" if accelerator.dimensions == 2 else "2x2x4"
        raise AcceleratorError(
            f"--topology {topology}: a slice of {accelerator.name} has {accelerator.dimensions} "
            f"dimensions, such as {example}"
        )
    bounds = [*sizes, 1][:3]
    if math.prod(bounds) > 1 and any(b % n for b, n in zip(bounds, CHIPS_PER_HOST, strict=True)):
        raise AcceleratorError(
            f"--topology {topology}: a host has 2x2 chips, so x and y of a slice are even"
        )
    return bounds


def _gpus(accelerator: Accelerator, sizes: list[int]) -> list[PlannedDevice]:
    slices, hosts, gpus = map(int, gpu_topology(sizes).split("x"))
    kind = accelerator.kinds[0]
    return [
        PlannedDevice(n, n // gpus, "gpu", kind, slice_index=n // (hosts * gpus))
        for n in range(slices * hosts * gpus)
    ]
