"""The training step of each method: time, FLOP/s, memory, host overhead and input stall.

With data (`config.data.dir`), batches are real and the input stall is measured. Without, batches
are noise of the same shapes, which changes neither time nor memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict
from tqdm import tqdm

from satmip_jax.bench.timing import Measurement, over_rounds
from satmip_jax.data.loaders import TrainBatches
from satmip_jax.data.shard_dataset import ShardDataset
from satmip_jax.distributed.multihost import is_main_process
from satmip_jax.distributed.sharding import make_mesh
from satmip_jax.planning import memory
from satmip_jax.planning.accelerators import accelerator_of
from satmip_jax.planning.flops import peak_flops, step_flops
from satmip_jax.planning.forecast import step_seconds
from satmip_jax.training.setup import open_split
from satmip_jax.training.step import Program, TrainState, build_program

Name = TypeVar("Name")

MATMUL = 2048  # side of the square matrices of the reference product


class Timed(Protocol):
    """A step that can be timed in turn with others."""

    def time(self, batch: Any, steps: int) -> list[float]:
        """Return the seconds of each of `steps` steps, after an untimed one."""
        ...


@dataclass
class Step:
    """A compiled training step, with its measurements.

    Attributes:
        init: returns a fresh state.
        run: (state, batch) -> (state, metrics).
        bytes: memory per device of the compiled step, arguments and results included; None if the
            compiler does not report it.
        peak: peak of allocated bytes on the first device; None if the device does not report it,
            or if an earlier program had a higher peak.
        host_seconds: host overhead of each timed step, seconds from the call until it returns.
        bound: row name and seconds of a lower bound or an estimate of the step's time, read off
            the program; None on a device whose numbers are not known.
    """

    init: Callable[[], TrainState]
    run: Callable[[TrainState, dict[str, Any]], tuple[TrainState, dict[str, jax.Array]]]
    bytes: int | None
    peak: int | None = None
    host_seconds: list[float] = field(default_factory=list)
    bound: tuple[str, float] | None = None

    def time(self, batch: dict[str, Any], steps: int) -> list[float]:
        """Return the seconds of `steps` steps from a fresh state, after an untimed one."""
        state, _ = self.run(self.init(), batch)
        jax.block_until_ready(state)
        seconds = []
        for _ in range(steps):
            start = time.perf_counter()
            state, metrics = self.run(state, batch)
            self.host_seconds.append(time.perf_counter() - start)
            jax.block_until_ready((state, metrics))
            seconds.append(time.perf_counter() - start)
        return seconds

    def record_peak(self, batch: dict[str, Any]) -> None:
        """Run the step once and record the peak of allocated memory.

        A device reports only its peak so far, so run steps in the order of their `bytes`.
        """
        before = _peak_bytes()
        self.time(batch, 1)
        after = _peak_bytes()
        self.peak = after if after > before else None


def take_turns(
    candidates: Mapping[Name, Timed], batches: Mapping[Name, Any], *, rounds: int, steps: int
) -> dict[Name, list[list[float]]]:
    """Time steps in turn, so that machine noise affects all alike.

    Args:
        candidates: name -> step to time.
        batches: name -> its batch.
        rounds: turns per candidate.
        steps: timed steps per turn.

    Returns:
        Name -> seconds of each step, by turn.
    """
    seconds: dict[Name, list[list[float]]] = {name: [] for name in candidates}
    turns = [name for _ in range(rounds) for name in candidates]
    quiet = not is_main_process()
    for name in tqdm(turns, desc="timing", unit=" turns", leave=False, disable=quiet):
        seconds[name].append(candidates[name].time(batches.get(name), steps))
    return seconds


def compile_step(program: Program) -> Step:
    """Compile the training step of a program."""
    compiled = memory.compile_step(program)
    step = Step(program.init, compiled, memory.compiled_bytes(compiled))
    if accelerator := accelerator_of(program.mesh.devices.flat[0].device_kind):
        name = "lower bound of step time" if accelerator.gpu else "XLA's estimate of step time"
        step.bound = name, step_seconds(compiled.as_text(), accelerator)
    return step


def one_batch(config: ConfigDict, dataset: ShardDataset, mesh: Mesh) -> dict[str, Any]:
    """Load the first batch of a training onto the devices.

    Args:
        config: config of the training.
        dataset: its train split.
        mesh: its devices.
    """
    with _batches(config, dataset, mesh) as batches:
        return next(batches)


def noise(program: Program) -> dict[str, Any]:
    """Make a batch of random pixels with every metadata field present, on the devices."""
    rng = np.random.default_rng(0)

    def draw(x: jax.ShapeDtypeStruct) -> jax.Array:
        values = np.ones(x.shape, x.dtype)
        if x.dtype == jnp.uint8:
            values = rng.integers(1, 256, x.shape, np.uint8)
        elif x.dtype == jnp.int32:  # labels, indices, categories
            values = np.zeros(x.shape, np.int32)
        return jax.device_put(values, x.sharding)

    return jax.tree.map(draw, memory.abstract_batch(program))


def bench(
    configs: Mapping[str, ConfigDict],
    *,
    rounds: int,
    steps: int,
    peers: Mapping[str, Callable[[ConfigDict], Timed]] | None = None,
) -> list[Measurement]:
    """Measure the training steps of methods; the first is the reference of the others.

    Args:
        configs: method -> config, all of one batch size.
        rounds: turns per method.
        steps: timed steps per turn.
        peers: name -> constructor of the first method's step in another library.
    """
    mesh = make_mesh()
    first = next(iter(configs.values()))
    dataset = open_split(first, first.data.train_split) if first.data.dir else None
    programs, timed = {}, {}
    for name, config in tqdm(configs.items(), desc="compiling", unit=" steps", leave=False):
        schema, examples = memory.schema_of(config, dataset)
        programs[name] = build_program(config, schema, examples, mesh)
        timed[name] = compile_step(programs[name])
    batch = one_batch(first, dataset, mesh) if dataset else noise(next(iter(programs.values())))
    for name in sorted(timed, key=lambda name: timed[name].bytes or 0):
        timed[name].record_peak(batch)
        timed[name].host_seconds.clear()

    candidates: dict[str, Timed] = dict(timed) | {"matmul": _Matmul(jnp.dtype(first.dtype))}
    candidates |= {name: make(first) for name, make in (peers or {}).items()}
    seconds = take_turns(candidates, dict.fromkeys(timed, batch), rounds=rounds, steps=steps)
    measurements = _results(programs, timed, seconds)
    return measurements + _stalls(programs, timed, dataset) if dataset else measurements


def _results(
    programs: Mapping[str, Program],
    timed: Mapping[str, Step],
    seconds: Mapping[str, Sequence[Sequence[float]]],
) -> list[Measurement]:
    reference = next(iter(programs))
    ceiling = [_Matmul.flops / s for turn in seconds["matmul"] for s in turn]
    achieved = over_rounds([flops / 1e12 for flops in ceiling])
    measurements = [Measurement("step", "matmul", "achieved", unit="TFLOP/s", **achieved)]
    for name, turns in seconds.items():
        if name == "matmul":
            continue
        program = programs.get(name, programs[reference])
        config = program.config
        facts = {"encoder": config.image.encoder, "side": config.image.size}
        facts |= {"batch": config.optimizer.batch_size, "dtype": config.dtype}

        def row(
            metric: str,
            unit: str,
            values: Sequence[float],
            name: str = name,
            facts: Mapping[str, Any] = facts,
        ) -> None:
            summary = over_rounds(values)
            measurements.append(
                Measurement("step", name, metric, unit=unit, facts=facts, **summary)
            )

        times = [s for turn in turns for s in turn]
        images = config.optimizer.batch_size
        flops = sum(n for part, n in step_flops(program).items() if part != "views")
        row("step time", "s", times)
        row("image throughput", "images/s", [images / s for s in times])
        row("view throughput", "views/s", [images * program.method.views / s for s in times])
        row("model FLOP/s", "TFLOP/s", [flops / s / 1e12 for s in times])
        row("relative to matmul", "%", [100 * flops / s / np.median(ceiling) for s in times])
        if peak := peak_flops(jax.devices()[0].device_kind, config.dtype):
            row("MFU", "%", [100 * flops / s / peak / jax.device_count() for s in times])
        own, base = ([float(np.median(t)) for t in all] for all in (turns, seconds[reference]))
        if name != reference:
            row(f"step time / {reference}", "", [a / b for a, b in zip(own, base, strict=True)])
        if name not in timed:
            continue
        step, other = timed[name], timed[reference]
        if step.bound:
            row(step.bound[0], "s", [step.bound[1]])
            row("step time / that", "", [s / step.bound[1] for s in times])
        row("host overhead", "ms", [1e3 * s for s in step.host_seconds])
        for metric in ("bytes", "peak"):
            label = "compiled memory" if metric == "bytes" else "allocated memory"
            if (size := getattr(step, metric)) is None:
                continue
            row(label, "MiB/device", [size / 2**20])
            if name != reference and (reference_size := getattr(other, metric)):
                row(f"{label} / {reference}", "", [size / reference_size])
    return measurements


def _stalls(
    programs: Mapping[str, Program], timed: Mapping[str, Step], dataset: ShardDataset
) -> list[Measurement]:
    """Measure the share of time that a training loop waits for its next batch."""
    measurements, steps = [], 10
    for name, program in programs.items():
        with _batches(program.config, dataset, program.mesh) as batches:
            state, _ = timed[name].run(program.init(), next(batches))
            jax.block_until_ready(state)
            waited, start = 0.0, time.perf_counter()
            for _ in range(steps):
                requested = time.perf_counter()
                batch = next(batches)
                waited += time.perf_counter() - requested
                state, _ = timed[name].run(state, batch)
            jax.block_until_ready(state)
            share = 100 * waited / (time.perf_counter() - start)
        stall = Measurement("step", name, "input stall", share, "% of time", rounds=steps)
        measurements.append(stall)
    return measurements


def _batches(config: ConfigDict, dataset: ShardDataset, mesh: Mesh) -> TrainBatches:
    return TrainBatches(
        dataset,
        mesh,
        batch_size=config.optimizer.batch_size,
        seed=config.seed,
        workers=config.data.workers,
        captions=config.metadata.encoder == "text",
    )


def _peak_bytes() -> int:
    return (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)


class _Matmul:
    """A square matrix product, as the upper bound of FLOP/s for devices without a known peak."""

    flops = 2 * MATMUL**3

    def __init__(self, dtype: Any) -> None:
        x = jax.random.normal(jax.random.key(0), (MATMUL, MATMUL)).astype(dtype)
        self.run = jax.jit(lambda x: x @ x)
        self.x = x

    def time(self, batch: Any, steps: int) -> list[float]:
        """Return the seconds of each of `steps` products."""
        del batch
        jax.block_until_ready(self.run(self.x))
        seconds = []
        for _ in range(steps):
            start = time.perf_counter()
            jax.block_until_ready(self.run(self.x))
            seconds.append(time.perf_counter() - start)
        return seconds
