"""Kernels of a training step by time: a trace of the JAX profiler, reduced to a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jax
from ml_collections import ConfigDict

from satmip_jax.bench.step import compile_step, noise
from satmip_jax.bench.timing import Measurement
from satmip_jax.distributed.sharding import make_mesh
from satmip_jax.errors import SatmipError
from satmip_jax.planning import memory
from satmip_jax.training.step import build_program

TRACES = "*.xplane.pb"
HOST = "/host:CPU"
OPERATION = "hlo_op"  # statistic of events on a CPU that are operations of a program


class TraceError(SatmipError, ValueError):
    """A folder without a trace, or a trace without kernels; the message names it."""


@dataclass(frozen=True)
class Kernel:
    """All calls of one kernel.

    Attributes:
        name: name in the trace.
        calls: number of calls.
        seconds: their time, without that of kernels that ran within them.
    """

    name: str
    calls: int
    seconds: float


def trace_step(config: ConfigDict, folder: Path, *, steps: int) -> None:
    """Trace some steps of a training on noise.

    Args:
        config: config of the training.
        folder: folder for the trace.
        steps: steps to trace, after two that are not.
    """
    schema, examples = memory.schema_of(config, None)
    program = build_program(config, schema, examples, make_mesh())
    step, batch = compile_step(program), noise(program)
    state = program.init()
    for _ in range(2):
        state, _ = step.run(state, batch)
    jax.block_until_ready(state)
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0  # it would slow the host
    with jax.profiler.trace(folder, profiler_options=options):
        for _ in range(steps):
            state, _ = step.run(state, batch)
        jax.block_until_ready(state)


def read_kernels(folder: Path) -> list[Kernel]:
    """Read the kernels in the newest trace of a folder, the most expensive first.

    These are the kernels of all streams of a GPU, the operations of a TPU, and on a CPU the
    operations in threads of XLA. Time of several devices and threads is summed.

    Args:
        folder: folder of `trace_step`, or WORKDIR/profile of `satmip train --profile`.

    Raises:
        TraceError: there is no trace, or no kernel in it.

    Example:
        >>> from satmip_jax.bench.kernels import read_kernels
        >>> x = jnp.ones((64, 64))
        >>> with jax.profiler.trace("trace"):
        ...     _ = jax.block_until_ready(jax.jit(lambda x: x @ x)(x))
        >>> len(read_kernels(Path("trace"))) > 0
        True
    """
    traces = sorted(folder.rglob(TRACES), key=lambda path: path.stat().st_mtime)
    if not traces:
        raise TraceError(f"{folder} has no trace ({TRACES}): trace steps of a training first")
    calls: Counter[str] = Counter()
    seconds: Counter[str] = Counter()
    for events in _lines(jax.profiler.ProfileData.from_file(str(traces[-1]))):
        for name, own in self_times(events):
            calls[name] += 1
            seconds[name] += own  # type: ignore[assignment]
    if not calls:
        raise TraceError(f"{traces[-1]} has no kernels: nothing ran on a device")
    return [Kernel(name, calls[name], float(time)) for name, time in seconds.most_common()]


def _lines(trace: Any) -> Iterator[list[tuple[str, float, float]]]:
    """Yield (name, start, duration in seconds) of the kernels of every line that has some."""
    for plane in trace.planes:
        lines = list(plane.lines)
        if plane.name.startswith("/device:"):
            # other lines of a device repeat the kernels: by step, module, source
            lines = [line for line in lines if line.name == "XLA Ops"] or [
                line for line in lines if line.name.startswith("Stream")
            ]
        elif plane.name != HOST:
            continue
        for line in lines:
            yield [
                (event.name, event.start_ns / 1e9, event.duration_ns / 1e9)
                for event in line.events
                if plane.name != HOST or OPERATION in dict(event.stats)
            ]


def self_times(events: Iterable[tuple[str, float, float]]) -> list[tuple[str, float]]:
    """Return the name and the own time of events, without that of the events within them.

    Args:
        events: (name, start, duration); those that overlap are nested.

    Example:
        >>> from satmip_jax.bench.kernels import self_times
        >>> self_times([("loop", 0.0, 10.0), ("product", 1.0, 4.0), ("sum", 6.0, 3.0)])
        [('loop', 3.0), ('product', 4.0), ('sum', 3.0)]
    """
    ordered = sorted(events, key=lambda event: (event[1], -event[2]))
    own = [duration for _, _, duration in ordered]
    open_: list[int] = []
    for i, (_, start, duration) in enumerate(ordered):
        while open_ and start >= ordered[open_[-1]][1] + ordered[open_[-1]][2]:
            open_.pop()
        if open_:
            own[open_[-1]] -= duration
        open_.append(i)
    return [(name, time) for (name, _, _), time in zip(ordered, own, strict=True)]


def measure(kernels: list[Kernel], *, steps: int, top: int) -> list[Measurement]:
    """Return the time of the most expensive kernels, and that of all others.

    Args:
        kernels: those of a trace, the most expensive first.
        steps: traced steps.
        top: number of kernels to list.
    """
    total = sum(kernel.seconds for kernel in kernels)
    rows, others = list(kernels[:top]), kernels[top:]
    if others:
        calls, seconds = sum(k.calls for k in others), sum(k.seconds for k in others)
        rows.append(Kernel(f"{len(others)} others", calls, seconds))
    rows.append(Kernel("all", sum(k.calls for k in kernels), total))
    return [
        Measurement(
            "kernels",
            kernel.name,
            "time",
            1e3 * kernel.seconds / steps,
            "ms/step",
            facts={"calls": kernel.calls / steps, "share": round(100 * kernel.seconds / total, 2)},
        )
        for kernel in rows
    ]


def bench(
    config: ConfigDict, *, steps: int, top: int, folder: Path | None = None
) -> list[Measurement]:
    """Trace some steps on noise and measure their kernels.

    Args:
        config: config of the training.
        steps: steps to trace.
        top: number of kernels to list.
        folder: folder to keep the trace in; by default it is deleted.
    """
    with TemporaryDirectory() as temporary:
        path = folder or Path(temporary)
        trace_step(config, path, steps=steps)
        return measure(read_kernels(path), steps=steps, top=top)
