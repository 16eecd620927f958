"""Kernels of a trace."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from satmip_jax.bench import kernels
from satmip_jax.bench.kernels import Kernel, TraceError, measure, read_kernels


def event(name, start, duration, **stats):
    return SimpleNamespace(name=name, start_ns=start, duration_ns=duration, stats=stats.items())


def line(name, *events):
    return SimpleNamespace(name=name, events=events)


def test_lines_that_repeat_the_kernels_of_a_gpu_are_not_counted():
    gpu = [
        line("Stream #13(Compute)", event("gemm", 0, 4e9), event("fusion", 4e9, 1e9)),
        line("Stream #17(MemcpyD2D)", event("copy", 1e9, 2e9)),
        line("XLA Modules", event("jit_step", 0, 5e9)),
        line("Steps", event("0", 0, 5e9)),
    ]
    tpu = [line("XLA Ops", event("dot", 0, 1e9)), line("Stream", event("dot", 0, 1e9))]
    host = [line("python", event("call", 0, 9e9), event("add", 1e9, 1e9, hlo_op="add"))]
    planes = [
        SimpleNamespace(name=name, lines=lines)
        for name, lines in (("/device:GPU:0", gpu), ("/device:TPU:0", tpu), ("/host:CPU", host))
    ]
    found = [
        name for events in kernels._lines(SimpleNamespace(planes=planes)) for name, *_ in events
    ]
    assert found == ["gemm", "fusion", "copy", "dot", "add"]


def test_kernels_of_a_real_trace(tmp_path):
    run = jax.jit(lambda x: jnp.sin(x @ x).sum())
    x = jnp.ones((64, 64))
    run(x).block_until_ready()
    with jax.profiler.trace(tmp_path):
        for _ in range(3):
            run(x).block_until_ready()
    found = read_kernels(tmp_path)
    assert found
    assert [k.seconds for k in found] == sorted((k.seconds for k in found), reverse=True)
    assert all(k.seconds >= 0 and k.calls > 0 and k.calls % 3 == 0 for k in found)


def test_a_folder_without_trace_is_named(tmp_path):
    with pytest.raises(TraceError, match="has no trace"):
        read_kernels(tmp_path)


def test_others_are_summed_and_shares_add_up():
    rows = measure([Kernel("a", 10, 6.0), Kernel("b", 5, 3.0), Kernel("c", 5, 1.0)], steps=5, top=1)
    table = {row.variant: (row.value, row.facts["calls"], row.facts["share"]) for row in rows}
    assert table == {"a": (1200, 2, 60.0), "2 others": (800, 2, 40.0), "all": (2000, 4, 100.0)}
