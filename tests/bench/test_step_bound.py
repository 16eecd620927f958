"""`satmip bench step` beside the bound of the program that it times."""

import jax
import pytest

from satmip_jax.bench import step as bench_step
from satmip_jax.distributed.sharding import make_mesh
from satmip_jax.planning.accelerators import ACCELERATORS
from satmip_jax.planning.forecast import step_seconds
from satmip_jax.planning.memory import compile_step
from satmip_jax.training.step import build_program


@pytest.mark.parametrize(
    ("name", "row"),
    [("h100", "lower bound of step time"), ("v5e", "XLA's estimate of step time")],
)
def test_a_known_device_gets_a_bound(tiny_config, tiny_shards, monkeypatch, name, row):
    accelerator = ACCELERATORS[name]
    monkeypatch.setattr(bench_step, "accelerator_of", {"cpu": accelerator}.get)
    config = tiny_config("supervised")
    mesh = make_mesh(jax.devices()[:1])
    program = build_program(config, tiny_shards.schema, len(tiny_shards), mesh)
    text = compile_step(program).as_text()
    assert bench_step.compile_step(program).bound == (row, step_seconds(text, accelerator))


def test_a_cpu_has_no_bound(tiny_config, tiny_shards):
    mesh = make_mesh(jax.devices()[:1])
    config = tiny_config("supervised")
    program = build_program(config, tiny_shards.schema, len(tiny_shards), mesh)
    assert bench_step.compile_step(program).bound is None
