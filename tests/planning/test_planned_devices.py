"""Devices of topologies that are not here, against libtpu where it is installed."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest
from click.testing import CliRunner

from satmip_jax.cli import cli
from satmip_jax.planning.accelerators import ACCELERATORS
from satmip_jax.planning.mesh_table import mesh_table
from satmip_jax.planning.planned_devices import planned_devices
from satmip_jax.planning.topology import AcceleratorError
from tests.conftest import REPOSITORY

TOPOLOGIES = [
    ("v4", "2x2x1", 1),
    ("v4", "2x2x4", 1),
    ("v4", "4x4x4", 1),
    ("v5e", "1x1", 1),
    ("v5e", "2x4", 1),
    ("v5e", "4x4", 2),
    ("v5e", "16x16", 1),
    ("v5p", "2x2x2", 1),
    ("v5p", "4x4x8", 1),
    ("v6e", "4x8", 2),
]
LIBTPU = """
import json, sys
from satmip_jax.planning.accelerators import ACCELERATORS
from satmip_jax.planning.topology import topology_devices
print(json.dumps([
    [[d.process_index, getattr(d, "slice_index", 0), list(d.coords), d.device_kind, d.core_on_chip]
     for d in topology_devices(ACCELERATORS[name], topology, slices)]
    for name, topology, slices in json.loads(sys.argv[1])
]))
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs compile-tpu")
def test_places_and_hosts_are_those_of_libtpu():
    command = [sys.executable, "-c", LIBTPU, json.dumps(TOPOLOGIES)]
    env = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True, env=env)
    for (name, topology, slices), theirs in zip(TOPOLOGIES, json.loads(done.stdout), strict=True):
        ours = [
            [d.process_index, d.slice_index, list(d.coords), d.device_kind, d.core_on_chip]
            for d in planned_devices(ACCELERATORS[name], topology, slices)
        ]
        assert sorted(ours) == sorted(theirs), (name, topology)


@pytest.mark.parametrize(
    ("name", "topology", "message"),
    [
        ("v5e", "4x4x4", "a slice of v5e has 2 dimensions, such as 4x4"),
        ("v4", "4x4", "a slice of v4 has 3 dimensions, such as 2x2x4"),
        ("v5e", "3x4", "x and y of a slice are even"),
        ("v6e", "four", "give the number of GPUs, such as 8, or the shape of a slice"),
        ("h100", "12", "a host has 8 GPUs; give a multiple of it"),
    ],
)
def test_other_topologies_are_refused(name, topology, message):
    with pytest.raises(AcceleratorError, match=message):
        planned_devices(ACCELERATORS[name], topology)


def doctor(*words):
    command = ["doctor", "--config", "configs/eurosat.py:satmips,cpu", "--config.data.dir="]
    return CliRunner().invoke(cli, [*command, *words], catch_exceptions=False)


def test_doctor_shows_the_mesh_and_the_rows_of_hosts_without_a_compiler(monkeypatch, tmp_path):
    monkeypatch.setattr("satmip_jax.planning.dry_run.use_virtual_devices", lambda devices: None)
    plan = tmp_path / "plan.json"
    done = doctor(
        *("--no-compile", "--accelerator", "v5e", "--topology", "8x8", "--slices", "2"),
        *("--config.optimizer.batch_size=1024", "--config.parallel.fsdp=4", "--json", str(plan)),
    )
    words = " ".join(done.output.split())
    assert done.exit_code == 0, words
    assert "data 32 x fsdp 4; fsdp within a slice, data across 2 slices over DCN" in words
    assert "hosts 32, one process on each" in words
    assert "host 1 reads 32 rows: 16-31, 48-63" in words
    mesh = json.loads(plan.read_text())["mesh"]
    read = [row for host in mesh["rows_of_hosts"] for a, b in host for row in range(a, b + 1)]
    assert (mesh["data"], mesh["fsdp"], len(mesh["rows_of_hosts"])) == (32, 4, 32)
    assert sorted(read) == list(range(1024))


@pytest.mark.parametrize(
    ("fsdp", "exit_code", "message"),
    [
        (16, 0, "note: config.parallel.fsdp is 16, and a host has 8 devices"),
        (3, 1, "error: config.parallel.fsdp is 3, which does not divide the 32 devices"),
    ],
)
def test_doctor_reports_groups_that_do_not_fit_a_host(monkeypatch, fsdp, exit_code, message):
    monkeypatch.setattr("satmip_jax.planning.dry_run.use_virtual_devices", lambda devices: None)
    done = doctor(
        *("--no-compile", "--accelerator", "h100", "--topology", "32"),
        *("--config.optimizer.batch_size=1024", f"--config.parallel.fsdp={fsdp}"),
    )
    assert done.exit_code == exit_code
    assert message in " ".join(done.output.split())


def test_the_table_of_the_docs_is_current():
    assert mesh_table() in (REPOSITORY / "docs/scaling.md").read_text()
