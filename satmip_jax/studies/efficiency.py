"""Time and memory of a training step, of each method relative to SimCLR. Nothing is learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from satmip_jax.bench.step import Step, compile_step, one_batch, take_turns
from satmip_jax.config.conversion import vary
from satmip_jax.data.shard_dataset import ShardDataset
from satmip_jax.distributed.sharding import make_mesh
from satmip_jax.evaluation.results import Score
from satmip_jax.metadata.schema import Schema
from satmip_jax.studies import plot
from satmip_jax.studies.base import Axis, MethodConfigs, Plan, Study, Variant, known_fields
from satmip_jax.studies.tracker import StudyRun, StudyTracker
from satmip_jax.training.setup import claim_workdir, open_split, run_schema
from satmip_jax.training.step import build_program

ROUNDS, STEPS = 7, 4  # every round takes so many timed steps of every variant in turn


def plan(recipes: MethodConfigs, schema: Schema) -> Plan:
    """SimCLR first: the others are relative to it."""
    known_fields(schema)
    satmip = recipes.of("satmip")
    variants = [
        Variant("simclr", recipes.of("simclr")),
        Variant("satmip", vary(satmip, {"metadata.encoder": "tabular"})),
        Variant("satmip-text", vary(satmip, {"metadata.encoder": "text"})),
        Variant("satmips", recipes.of("satmips", coupled=True)),
        Variant("satmips-uncoupled", recipes.of("satmips", coupled=False)),
        Variant("metapred", recipes.of("metapred")),
    ]
    if schema.classes:
        return Plan([*variants, Variant("supervised", recipes.of("supervised"))])
    return Plan(variants, {"supervised": f"{schema.name} has no labels"})


def measure(book: StudyTracker) -> None:
    """Compile all variants, then time them in turn: a change of the machine's pace hits all alike.

    All are measured again where any is missing: only what one process measured is compared.
    """
    if len(book.rows) == len(book.units):
        return
    dataset = open_split(book.config, book.config.data.train_split)
    mesh = make_mesh()
    batches: dict[str, Any] = {}  # metadata encoder -> a batch as it wants it
    fed: dict[str, Any] = {}
    steps: dict[str, Step] = {}
    for unit in book.units:
        book.console.rule(f"compiling {unit.name}")
        with book.attempt(unit):
            config = unit.config
            assert config is not None
            claim_workdir(unit.folder, config)
            schema = run_schema(config, dataset, unit.folder)
            steps[unit.name] = compile_step(build_program(config, schema, len(dataset), mesh))
            if (encoder := config.metadata.encoder) not in batches:
                batches[encoder] = one_batch(config, dataset, mesh)
            fed[unit.name] = batches[encoder]
    for unit in sorted(
        (unit for unit in book.units if unit.name in steps),
        key=lambda unit: steps[unit.name].bytes or 0,
    ):
        step = steps.pop(unit.name)
        with book.attempt(unit):
            step.mark_peak(fed[unit.name])
            steps[unit.name] = step
    seconds = take_turns(steps, fed, rounds=ROUNDS, steps=STEPS)
    reference = book.units[0].name
    for unit in book.units:
        if unit.name in steps:
            rows = table_rows(unit, reference, steps, seconds, dataset)
            book.keep(unit, dataset.schema.name, rows)
            book.finish(unit)


def table_rows(
    unit: StudyRun,
    reference: str,
    steps: Mapping[str, Step],
    seconds: Mapping[str, Sequence[Sequence[float]]],
    dataset: ShardDataset,
) -> list[Score]:
    """Medians with their quartiles, absolute and relative to the reference, round by round."""
    config = unit.config
    assert config is not None

    def row(protocol: str, metric: str, values: Sequence[float]) -> Score:
        low, middle, high = (float(q) for q in np.quantile(values, (0.25, 0.5, 0.75)))
        spread = {"low": low, "high": high} if len(values) > 1 else {}
        return Score(
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

    mine = seconds[unit.name]
    rows = [row("timed", "step_seconds", [second for part in mine for second in part])]
    if reference in steps:
        medians = [
            [float(np.median(part)) for part in parts] for parts in (mine, seconds[reference])
        ]
        ratios = [one / other for one, other in zip(*medians, strict=True)]
        rows.append(row("timed", "relative_step_time", ratios))
    for protocol, name in (("compiled", "bytes"), ("allocated", "peak")):
        size = getattr(steps[unit.name], name)
        if size is None:
            continue
        rows.append(row(protocol, f"{protocol}_bytes", [size]))
        if reference in steps and (other := getattr(steps[reference], name)):
            rows.append(row(protocol, f"relative_{protocol}_memory", [size / other]))
    return rows


STUDY = Study(
    name="efficiency",
    title="Time and memory of a training step",
    description=(
        "One training step of SimCLR, SatMIP with either metadata encoder, SatMIPS (one view "
        "shared by both losses), uncoupled SatMIPS (a view of its own for SatMIP), prediction of "
        "metadata and supervised training, relative to SimCLR: time measured in "
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
