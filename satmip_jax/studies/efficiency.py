"""Time and memory of a training step, of each method relative to SimCLR. Nothing is learned."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict
from tqdm import tqdm

from satmip_jax import parallel
from satmip_jax.evaluation.results import Row
from satmip_jax.memory import compiled_bytes
from satmip_jax.metadata.schema import Schema
from satmip_jax.pipeline import TrainBatches
from satmip_jax.shards import ShardDataset
from satmip_jax.studies import plot
from satmip_jax.studies.base import Axis, Plan, Study, Variant, known_fields, vary
from satmip_jax.studies.book import Book, Unit
from satmip_jax.train import claim_workdir, open_split
from satmip_jax.train_step import TrainState, build_program

ROUNDS, STEPS = 7, 4  # every round takes so many timed steps of every variant in turn


def plan(config: ConfigDict, schema: Schema) -> Plan:
    """SimCLR first: the others are relative to it."""
    known_fields(schema)
    changes: dict[str, dict[str, Any]] = {
        "simclr": {"method.name": "simclr"},
        "satmip": {"method.name": "satmip"},
        "satmips": {"method.name": "satmips", "method.coupled": True},
        "satmips-uncoupled": {"method.name": "satmips", "method.coupled": False},
    }
    return Plan([Variant(name, vary(config, change)) for name, change in changes.items()])


@dataclass
class Step:
    """A compiled training step and what was measured of it.

    Attributes:
      bytes: device memory of the compiled step: arguments, results and what lies between, per
        device; None where the compiler does not tell.
      peak: bytes in use at most on the first device, where it tells and this step set the mark.
      rounds: seconds of the timed steps of each round.
    """

    init: Callable[[], TrainState]
    run: Callable[[TrainState, dict[str, Any]], tuple[TrainState, dict[str, jax.Array]]]
    bytes: int | None
    peak: int | None = None
    rounds: list[list[float]] = field(default_factory=list)

    def time(self, batch: dict[str, Any], steps: int) -> list[float]:
        """Seconds of `steps` steps from a fresh state, after one that is not counted."""
        state, _ = self.run(self.init(), batch)
        jax.block_until_ready(state)
        seconds = []
        for _ in range(steps):
            start = time.perf_counter()
            state, metrics = self.run(state, batch)
            jax.block_until_ready((state, metrics))
            seconds.append(time.perf_counter() - start)
        return seconds


def measure(book: Book) -> None:
    """Compile all variants, then time them in turn: a change of the machine's pace hits all alike.

    All are measured again where any is missing: only what one process measured is compared.
    """
    if len(book.rows) == len(book.units):
        return
    dataset = open_split(book.config, book.config.data.train_split)
    mesh = parallel.make_mesh()
    batch = one_batch(book.config, dataset, mesh)
    steps: dict[str, Step] = {}
    for unit in book.units:
        book.console.rule(f"compiling {unit.name}")
        with book.attempt(unit):
            claim_workdir(unit.folder, unit.config)
            steps[unit.name] = compile_step(unit.config, dataset, mesh, batch)
    _memory(book, steps, batch)
    turns = [unit for _ in range(ROUNDS) for unit in book.units if unit.name in steps]
    for unit in tqdm(turns, desc="timing", unit=" turns", disable=not parallel.is_main_process()):
        step = steps[unit.name]
        step.rounds.append(step.time(batch, STEPS))
    reference = steps.get(book.units[0].name)
    for unit in book.units:
        if unit.name in steps:
            rows = table_rows(unit, steps[unit.name], reference, dataset)
            book.keep(unit, dataset.schema.name, rows)
            book.finish(unit)


def one_batch(config: ConfigDict, dataset: ShardDataset, mesh: Mesh) -> dict[str, Any]:
    """The first batch of a training, on the devices."""
    with TrainBatches(
        dataset,
        mesh,
        batch_size=config.optimizer.batch_size,
        seed=config.seed,
        captions=config.metadata.encoder == "text",
    ) as batches:
        return next(batches)


def compile_step(
    config: ConfigDict, dataset: ShardDataset, mesh: Mesh, batch: dict[str, Any]
) -> Step:
    """The training step of a config, compiled for the shapes of `batch`."""
    program = build_program(config, dataset.schema, len(dataset), mesh)
    step: Any = program.step
    compiled = step.lower(program.abstract, batch).compile()
    return Step(program.init, compiled, compiled_bytes(compiled))


def _memory(book: Book, steps: dict[str, Step], batch: dict[str, Any]) -> None:
    """Run each step once, the smallest first: the device only tells the highest mark ever."""
    device = jax.local_devices()[0]

    def highest() -> int:
        return (device.memory_stats() or {}).get("peak_bytes_in_use", 0)

    mark = highest()
    for unit in sorted(
        (unit for unit in book.units if unit.name in steps),
        key=lambda unit: steps[unit.name].bytes or 0,
    ):
        step = steps.pop(unit.name)
        with book.attempt(unit):
            step.time(batch, 1)
            step.peak = highest() if highest() > mark else None
            mark = highest()
            steps[unit.name] = step


def table_rows(unit: Unit, step: Step, reference: Step | None, dataset: ShardDataset) -> list[Row]:
    """Medians with their quartiles, absolute and relative to the reference, round by round."""
    config = unit.config
    assert config is not None

    def row(protocol: str, metric: str, values: Sequence[float]) -> Row:
        low, middle, high = (float(q) for q in np.quantile(values, (0.25, 0.5, 0.75)))
        spread = {"low": low, "high": high} if len(values) > 1 else {}
        return Row(
            dataset=dataset.schema.name,
            split=dataset.split,
            model=f"{unit.variant.name} {config.image.encoder}",
            features="",
            protocol=protocol,
            metric=metric,
            value=middle,
            n=len(values),
            **spread,
        )

    rows = [row("timed", "step_seconds", [second for part in step.rounds for second in part])]
    if reference is not None:
        medians = [[float(np.median(part)) for part in s.rounds] for s in (step, reference)]
        ratios = [mine / other for mine, other in zip(*medians, strict=True)]
        rows.append(row("timed", "relative_step_time", ratios))
    for protocol, name in (("compiled", "bytes"), ("allocated", "peak")):
        mine = getattr(step, name)
        if mine is None:
            continue
        rows.append(row(protocol, f"{protocol}_bytes", [mine]))
        if reference is not None and (other := getattr(reference, name)):
            rows.append(row(protocol, f"relative_{protocol}_memory", [mine / other]))
    return rows


STUDY = Study(
    name="efficiency",
    title="Time and memory of a training step",
    description=(
        "One training step of SimCLR, SatMIP, SatMIPS (one view shared by both losses) and "
        "uncoupled SatMIPS (a view of its own for SatMIP), relative to SimCLR: time measured in "
        "turn in one process, data already on the device; memory as the compiler plans it and, "
        "where the device tells, as it was allocated at most. The paper, time | memory: SimCLR 1 "
        "| 1, SatMIP 0.56 | 0.62, SatMIPS 1.05 | 1.11."
    ),
    plan=plan,
    x=(Axis("variant", "method"),),
    draw=plot.bars,
    metrics=(
        "step_seconds",
        "relative_step_time",
        "compiled_bytes",
        "relative_compiled_memory",
        "allocated_bytes",
        "relative_allocated_memory",
    ),
    measure=measure,
)
