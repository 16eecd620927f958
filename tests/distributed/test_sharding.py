"""The rows of a batch on devices in any order."""

from dataclasses import dataclass

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh

from satmip_jax.data.loaders import InMemoryBatches, TrainBatches
from satmip_jax.distributed.sharding import (
    BATCH,
    check_batch_size,
    make_mesh,
    process_rows,
    to_devices,
)
from satmip_jax.errors import ConfigError

# processes along the batch, as jax.make_mesh orders the devices
TOPOLOGIES = {
    "v5e 4x4, 4 hosts": "0 0 1 1 1 1 0 2 3 3 3 3 2 2 2 0",
    "v4 2x2x4, 4 hosts": "0 1 2 3 0 1 2 3 0 1 2 3 0 1 2 3",
    "in order": "0 0 0 0 1 1 1 1",
}
PERMUTED = (3, 0, 6, 1, 7, 2, 5, 4)


@dataclass(frozen=True)
class Chip:
    """A device of a host that is not here."""

    id: int
    process_index: int
    platform: str = "tpu"
    device_kind: str = "TPU v5 lite"


def permuted_mesh(fsdp=1):
    devices = np.array(jax.devices())[list(PERMUTED)].reshape(-1, fsdp)
    return Mesh(devices, BATCH, axis_types=(AxisType.Auto,) * 2)


@pytest.mark.parametrize("fsdp", [1, 4])
@pytest.mark.parametrize("name", TOPOLOGIES)
def test_each_process_reads_the_rows_of_its_devices(name, fsdp):
    processes = [int(number) for number in TOPOLOGIES[name].split()]
    chips = np.array([Chip(i, process) for i, process in enumerate(processes)])
    mesh = Mesh(chips.reshape(-1, fsdp), BATCH)
    size = 2 * len(chips)
    rows = [process_rows(mesh, size, process) for process in range(max(processes) + 1)]
    for process, mine in enumerate(rows):
        assert mine.tolist() == [r for r in range(size) if processes[r // 2] == process]
    assert sorted(np.concatenate(rows).tolist()) == list(range(size))  # each row is read once
    assert not len(process_rows(mesh, size, max(processes) + 1))


def test_permuted_devices_hold_the_rows_of_the_batch():
    mesh = permuted_mesh(fsdp=2)
    placed = to_devices(np.arange(16), mesh)
    np.testing.assert_array_equal(placed, np.arange(16))
    for shard in placed.addressable_shards:
        block = PERMUTED.index(shard.device.id)
        assert np.asarray(shard.data).tolist() == [2 * block, 2 * block + 1]


@pytest.mark.parametrize("loader", [TrainBatches, InMemoryBatches])
def test_batches_are_the_same_on_permuted_devices(tiny_shards, loader):
    def take(mesh):
        with loader(tiny_shards, mesh, batch_size=24, seed=3) as batches:
            return [jax.device_get(next(batches)) for _ in range(4)]

    jax.tree.map(np.testing.assert_array_equal, take(permuted_mesh()), take(make_mesh()))


@pytest.mark.parametrize(
    ("batch_size", "devices", "examples", "message"),
    [
        (30, 8, 64, "use 24 or 32"),
        (61, 8, 62, "use 56"),  # the next multiple is more than there are
        (72, 8, 70, "a batch would contain duplicates; use at most 64"),
        (8, 8, 7, "7 images, fewer than the 8 devices"),
        (7, 8, 7, "7 images, fewer than the 8 devices"),
    ],
)
def test_batch_sizes_that_cannot_be_divided_are_refused(batch_size, devices, examples, message):
    check_batch_size(64, 8, examples=64)
    with pytest.raises(ConfigError, match=message):
        check_batch_size(batch_size, devices, examples=examples)
