"""Checkpoints in a bucket that several processes write together."""

import os
import socket
import subprocess
import sys

import pytest

from satmip_jax.runtime import stores
from satmip_jax.runtime.paths import as_path
from tests.conftest import REPOSITORY


@pytest.mark.slow
def test_two_processes_share_checkpoints_in_a_bucket(bucket, tiny_shards_dir):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{free.getsockname()[1]}"
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo",
    }
    schema = os.fspath(tiny_shards_dir / "schema.json")
    worker = [sys.executable, "-m", "tests.checkpoints.bucket_worker"]
    pair = [
        subprocess.Popen(
            [*worker, coordinator, str(i), bucket, schema],
            cwd=REPOSITORY,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for i in range(2)
    ]
    for process in pair:
        output, _ = process.communicate(timeout=300)
        assert "checkpoints [3]" in output, output
    assert stores.names_in(as_path(bucket) / "checkpoints") == ["3"]
