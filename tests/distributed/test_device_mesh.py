"""Meshes of slices and hosts that are not here: places of the axes, and rows of the hosts."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from satmip_jax.distributed.device_mesh import describe_mesh, mesh_advice, rows_by_process
from satmip_jax.distributed.sharding import batch_sharding, make_mesh, process_rows
from satmip_jax.errors import ConfigError
from satmip_jax.planning.accelerators import ACCELERATORS
from satmip_jax.planning.planned_devices import planned_devices, planned_hosts

SHAPES = {
    "v4": ("1x1x1", "2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8"),
    "v5e": ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16"),
    "v5p": ("2x2x1", "2x2x2", "2x2x4", "4x4x4", "4x4x8", "8x8x8"),
    "v6e": ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16"),
    "h100": ("1", "4", "8", "16", "64", "1x16x4", "2x4x8"),
}
TOPOLOGIES = [(name, shape) for name, shapes in SHAPES.items() for shape in shapes]


def divisors(number):
    return [n for n in range(1, number + 1) if number % n == 0]


@st.composite
def plans(draw):
    name, shape = draw(st.sampled_from(TOPOLOGIES))
    slices = draw(st.integers(1, 3)) if name != "h100" else 1
    devices = planned_devices(ACCELERATORS[name], shape, slices)
    return devices, draw(st.sampled_from(divisors(len(devices)))), draw(st.integers(1, 5))


def granule(device):
    """The slice of a chip, the host of a GPU, or its domain of NVLink."""
    return device.slice_index if device.platform == "tpu" else device.process_index


@settings(max_examples=150, deadline=None)
@given(plans())
def test_each_row_is_read_once_by_the_host_whose_devices_hold_it(plan):
    devices, fsdp, local = plan
    size = sum(granule(device) == granule(devices[0]) for device in devices)
    if devices[0].platform == "gpu" and len({device.slice_index for device in devices}) > 1:
        size = sum(device.slice_index == 0 for device in devices)
    if size % fsdp and fsdp % size:
        with pytest.raises(ConfigError, match="or a multiple of"):
            make_mesh(devices, fsdp=fsdp)
        return
    mesh = make_mesh(devices, fsdp=fsdp)
    assert set(mesh.devices.flat) == set(devices)
    rows = local * len(devices)
    by_process = rows_by_process(mesh, rows)
    assert sorted(np.concatenate(list(by_process.values()))) == list(range(rows))
    assert len({len(mine) for mine in by_process.values()}) == 1  # hosts read equally much
    held = {}  # what the sharding of a batch puts on the devices of each host
    for device, (part,) in batch_sharding(mesh).devices_indices_map((rows,)).items():
        held.setdefault(device.process_index, []).extend(range(rows)[part])
    assert {process: sorted(mine) for process, mine in held.items()} == {
        process: mine.tolist() for process, mine in by_process.items()
    }
    assert process_rows(mesh, rows, 0).tolist() == by_process[0].tolist()


@settings(max_examples=100, deadline=None)
@given(plans())
def test_groups_that_fit_do_not_cross_the_slow_network(plan):
    devices, fsdp, _ = plan
    slices = {device.slice_index for device in devices}
    domain = granule if len(slices) == 1 else lambda device: device.slice_index
    size = sum(domain(device) == domain(devices[0]) for device in devices)
    if size % fsdp:
        return
    mesh = make_mesh(devices, fsdp=fsdp)
    assert all(len({domain(device) for device in group}) == 1 for group in mesh.devices)
    assert mesh_advice(mesh) == ""


@pytest.mark.parametrize("name", ["v4", "v5e", "v5p", "v6e"])
def test_groups_of_a_side_of_the_torus_are_neighbours(name):
    """A group of 4 in a slice of 4 x 4 (x 4) is a ring along one axis, or a square."""
    shape = "4x4" if ACCELERATORS[name].dimensions == 2 else "4x4x4"
    mesh = make_mesh(planned_devices(ACCELERATORS[name], shape), fsdp=4)
    for group in mesh.devices:
        extents = np.ptp([device.coords for device in group], axis=0) + 1
        assert math.prod(extents) == 4


def test_the_description_names_the_network_of_each_axis():
    def described(name, topology, slices, fsdp):
        return describe_mesh(
            make_mesh(planned_devices(ACCELERATORS[name], topology, slices), fsdp=fsdp)
        )

    assert described("v5e", "16x16", 2, 4) == (
        "data 128 x fsdp 4; fsdp within a slice, data across 2 slices over DCN"
    )
    assert described("v5e", "4x4", 1, 4) == "data 4 x fsdp 4; all within a slice"
    assert described("v4", "2x2x1", 4, 8) == (
        "data 2 x fsdp 8; each fsdp group across 2 slices over DCN"
    )
    assert described("h100", "64", 1, 8) == (
        "data 8 x fsdp 8; fsdp within a host, data across 8 hosts over the network"
    )
    assert described("h100", "64", 1, 1) == (
        "data 64 x fsdp 1; data across 8 hosts over the network"
    )
    assert described("h100", "2x4x8", 1, 32) == (  # two domains of NVLink of four hosts each
        "data 2 x fsdp 32; fsdp within a slice, data across 2 slices over DCN"
    )


def test_groups_larger_than_a_host_are_placed_on_complete_hosts_with_advice():
    mesh = make_mesh(planned_devices(ACCELERATORS["h100"], "64"), fsdp=16)
    hosts = [sorted({device.process_index for device in group}) for group in mesh.devices]
    assert hosts == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert "fsdp=8 stays within a host" in mesh_advice(mesh)


def test_groups_of_parts_of_hosts_are_refused():
    devices = planned_hosts(24, 3)
    with pytest.raises(ConfigError, match="Use one of 1, 2, 4, 8, or a multiple of 8"):
        make_mesh(devices, fsdp=12)


def test_slices_of_different_topologies_are_refused():
    small = planned_devices(ACCELERATORS["v5e"], "2x2")
    other = [replace(d, slice_index=1) for d in planned_devices(ACCELERATORS["v5e"], "2x4")]
    with pytest.raises(ConfigError, match=r"different numbers of devices \(4, 8\)"):
        make_mesh([*small, *other])


def test_hosts_with_different_numbers_of_devices_keep_their_order():
    devices = planned_hosts(8, 3)  # 3, 3 and 2
    assert make_mesh(devices, fsdp=2).devices.flatten().tolist() == devices
