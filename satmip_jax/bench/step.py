"""The training step of each method: time, FLOP/s, memory, what the host adds, what it waits for.

With data (`config.data.dir`) batches are real and the stall of the input pipeline is measured too;
without, they are noise of the right shapes: nothing here depends on what is in the pixels.
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

from satmip_jax.bench.timing import Measurement, spread
from satmip_jax.data.loaders import TrainBatches
from satmip_jax.data.shard_dataset import ShardDataset
from satmip_jax.distributed.multihost import is_main_process
from satmip_jax.distributed.sharding import make_mesh
from satmip_jax.planning import memory
from satmip_jax.planning.flops import peak_flops, step_flops
from satmip_jax.training.setup import open_split
from satmip_jax.training.step import Program, TrainState, build_program

Name = TypeVar("Name")

MATMUL = 2048  # side of the square product that shows what the device can do


class Timed(Protocol):
    """What takes a turn."""

    def time(self, batch: Any, steps: int) -> list[float]:
        """Seconds of each of `steps` steps, after one that is not counted."""
        ...


@dataclass
class Step:
    """A compiled training step and what was measured of it.

    Attributes:
      bytes: device memory of the compiled step: arguments, results and what lies between, per
        device; None where the compiler does not tell.
      peak: bytes in use at most on the first device, where it tells and this step set the mark.
      dispatch: seconds until the host was free again, of each timed step.
    """

    init: Callable[[], TrainState]
    run: Callable[[TrainState, dict[str, Any]], tuple[TrainState, dict[str, jax.Array]]]
    bytes: int | None
    peak: int | None = None
    dispatch: list[float] = field(default_factory=list)

    def time(self, batch: dict[str, Any], steps: int) -> list[float]:
        """Seconds of `steps` steps from a fresh state, after one that is not counted."""
        state, _ = self.run(self.init(), batch)
        jax.block_until_ready(state)
        seconds = []
        for _ in range(steps):
            start = time.perf_counter()
            state, metrics = self.run(state, batch)
            self.dispatch.append(time.perf_counter() - start)
            jax.block_until_ready((state, metrics))
            seconds.append(time.perf_counter() - start)
        return seconds

    def mark_peak(self, batch: dict[str, Any]) -> None:
        """Run once and see whether it took more memory than anything before it.

        A device only tells the highest mark ever: take steps in the order of their `bytes`.
        """
        before = _highest_mark()
        self.time(batch, 1)
        after = _highest_mark()
        self.peak = after if after > before else None


def take_turns(
    rivals: Mapping[Name, Timed], batches: Mapping[Name, Any], *, rounds: int, steps: int
) -> dict[Name, list[list[float]]]:
    """Seconds of the steps of every turn, by rival: a slow minute of the machine hits all alike.

    Args:
        rivals: name -> what is timed.
        batches: name -> what it is given.
        rounds: turns of each.
        steps: of a turn.
    """
    seconds: dict[Name, list[list[float]]] = {name: [] for name in rivals}
    turns = [name for _ in range(rounds) for name in rivals]
    quiet = not is_main_process()
    for name in tqdm(turns, desc="timing", unit=" turns", leave=False, disable=quiet):
        seconds[name].append(rivals[name].time(batches.get(name), steps))
    return seconds


def compile_step(program: Program) -> Step:
    """Compile the training step of a program."""
    compiled = memory.compile_step(program)
    return Step(program.init, compiled, memory.compiled_bytes(compiled))


def one_batch(config: ConfigDict, dataset: ShardDataset, mesh: Mesh) -> dict[str, Any]:
    """The first batch of a training, on the devices."""
    with _batches(config, dataset, mesh) as batches:
        return next(batches)


def noise(program: Program) -> dict[str, Any]:
    """A batch of random pixels with every field present, on the devices."""
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
    recipes: Mapping[str, ConfigDict],
    *,
    rounds: int,
    steps: int,
    peers: Mapping[str, Callable[[ConfigDict], Timed]] | None = None,
) -> list[Measurement]:
    """Measure the steps of some methods, the first of them the reference of the others.

    Args:
        recipes: method -> config, all of one batch size.
        rounds: how often all take their turn.
        steps: timed steps of a turn.
        peers: name -> what makes a rival of the first method's step, in another library.
    """
    mesh = make_mesh()
    first = next(iter(recipes.values()))
    dataset = open_split(first, first.data.train_split) if first.data.dir else None
    programs, timed = {}, {}
    for name, config in tqdm(recipes.items(), desc="compiling", unit=" steps", leave=False):
        schema, examples = memory.schema_of(config, dataset)
        programs[name] = build_program(config, schema, examples, mesh)
        timed[name] = compile_step(programs[name])
    batch = one_batch(first, dataset, mesh) if dataset else noise(next(iter(programs.values())))
    for name in sorted(timed, key=lambda name: timed[name].bytes or 0):
        timed[name].mark_peak(batch)
        timed[name].dispatch.clear()

    rivals: dict[str, Timed] = dict(timed) | {"matmul": _Matmul(jnp.dtype(first.dtype))}
    rivals |= {name: make(first) for name, make in (peers or {}).items()}
    seconds = take_turns(rivals, dict.fromkeys(timed, batch), rounds=rounds, steps=steps)
    found = _results(programs, timed, seconds)
    return found + _stalls(programs, timed, dataset) if dataset else found


def _results(
    programs: Mapping[str, Program],
    timed: Mapping[str, Step],
    seconds: Mapping[str, Sequence[Sequence[float]]],
) -> list[Measurement]:
    reference = next(iter(programs))
    ceiling = [_Matmul.flops / s for turn in seconds["matmul"] for s in turn]
    best = spread([flops / 1e12 for flops in ceiling])
    found = [Measurement("step", "matmul", "achieved", unit="TFLOP/s", **best)]
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
            found.append(
                Measurement("step", name, metric, unit=unit, facts=facts, **spread(values))
            )

        every = [s for turn in turns for s in turn]
        images = config.optimizer.batch_size
        flops = sum(n for part, n in step_flops(program).items() if part != "views")
        row("step", "s", every)
        row("images", "images/s", [images / s for s in every])
        row("views", "views/s", [images * program.method.views / s for s in every])
        row("model FLOPs", "TFLOP/s", [flops / s / 1e12 for s in every])
        row("of a matmul's FLOP/s", "%", [100 * flops / s / np.median(ceiling) for s in every])
        if peak := peak_flops(jax.devices()[0].device_kind, config.dtype):
            row("MFU", "%", [100 * flops / s / peak / jax.device_count() for s in every])
        mine, theirs = ([float(np.median(t)) for t in all] for all in (turns, seconds[reference]))
        if name != reference:
            row(f"time / {reference}", "", [a / b for a, b in zip(mine, theirs, strict=True)])
        if name not in timed:
            continue
        step, other = timed[name], timed[reference]
        row("host, until free", "ms", [1e3 * s for s in step.dispatch])
        for metric in ("bytes", "peak"):
            label = "compiled memory" if metric == "bytes" else "allocated memory"
            if (size := getattr(step, metric)) is None:
                continue
            row(label, "MiB/device", [size / 2**20])
            if name != reference and (base := getattr(other, metric)):
                row(f"{label} / {reference}", "", [size / base])
    return found


def _stalls(
    programs: Mapping[str, Program], timed: Mapping[str, Step], dataset: ShardDataset
) -> list[Measurement]:
    """Share of the time that the loop of a training waits for its next batch."""
    found, steps = [], 10
    for name, program in programs.items():
        with _batches(program.config, dataset, program.mesh) as batches:
            state, _ = timed[name].run(program.init(), next(batches))
            jax.block_until_ready(state)
            waited, start = 0.0, time.perf_counter()
            for _ in range(steps):
                asked = time.perf_counter()
                batch = next(batches)
                waited += time.perf_counter() - asked
                state, _ = timed[name].run(state, batch)
            jax.block_until_ready(state)
            share = 100 * waited / (time.perf_counter() - start)
        found.append(Measurement("step", name, "input stall", share, "% of time", rounds=steps))
    return found


def _batches(config: ConfigDict, dataset: ShardDataset, mesh: Mesh) -> TrainBatches:
    return TrainBatches(
        dataset,
        mesh,
        batch_size=config.optimizer.batch_size,
        seed=config.seed,
        workers=config.data.workers,
        captions=config.metadata.encoder == "text",
    )


def _highest_mark() -> int:
    return (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)


class _Matmul:
    """A square matrix product: what this device does at best, where no data sheet says it."""

    flops = 2 * MATMUL**3

    def __init__(self, dtype: Any) -> None:
        x = jax.random.normal(jax.random.key(0), (MATMUL, MATMUL)).astype(dtype)
        self.run = jax.jit(lambda x: x @ x)
        self.x = x

    def time(self, batch: Any, steps: int) -> list[float]:
        """Seconds of each of `steps` products."""
        del batch
        jax.block_until_ready(self.run(self.x))
        seconds = []
        for _ in range(steps):
            start = time.perf_counter()
            jax.block_until_ready(self.run(self.x))
            seconds.append(time.perf_counter() - start)
        return seconds
