"""Checkpoints in a bucket that several processes write together."""

import os
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from satmip_jax.checkpoints.manager import Checkpoints, SaveError
from satmip_jax.config.defaults import default_config
from satmip_jax.metadata.schema import Schema
from satmip_jax.runtime import stores
from satmip_jax.runtime.paths import as_path
from tests.conftest import REPOSITORY


def test_a_save_that_the_bucket_refuses_costs_a_checkpoint_but_not_the_run(
    bucket, bucket_server, tiny_shards_dir, caplog
):
    state = {"step": jnp.int32(1), "params": {"kernel": jnp.ones((64, 3))}}
    schema = Schema.load(tiny_shards_dir / "schema.json")
    with Checkpoints(bucket) as checkpoints:
        for step in (1, 2, 3):
            bucket_server.refused[:] = ["checkpoints/2/state"] if step == 2 else []
            checkpoints.save(step, state, default_config(), schema)
            checkpoints.settle()
            if step == 2:
                with pytest.raises(SaveError, match="checkpoint 2 could not be written"):
                    checkpoints.wait()
                assert checkpoints.latest == 1
        checkpoints.wait()
        assert checkpoints._steps() == [1, 3]
    assert "Training continues" in caplog.text
    with Checkpoints(bucket) as checkpoints:
        checkpoints.restore(jax.eval_shape(lambda: state))
        assert checkpoints.restored == 3
    assert stores.names_in(as_path(bucket) / "checkpoints") == ["1", "3"]


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
