"""Study: time and memory of a training step, relative to SimCLR. Nothing is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from satmip_jax.bench.step import Step, compile_step, one_batch, take_turns
from satmip_jax.data.shard_dataset import ShardDataset
from satmip_jax.distributed.sharding import make_mesh
from satmip_jax.evaluation.results import Score
from satmip_jax.metadata.schema import Schema
from satmip_jax.studies import plot
from satmip_jax.studies.base import Axis, MethodConfigs, Plan, Study, fields_with_values
from satmip_jax.studies.methods import method_variants
from satmip_jax.studies.tracker import StudyRun, StudyTracker
from satmip_jax.training.setup import open_split, run_schema
from satmip_jax.training.step import build_program
from satmip_jax.training.workdir import claim_workdir

ROUNDS, STEPS = 7, 4  # rounds over all variants, timed steps per round


def plan(configs: MethodConfigs, schema: Schema) -> Plan:
    """Plan every method; the first, SimCLR, is the reference."""
    fields_with_values(schema)
    return method_variants(configs, schema)


def measure(tracker: StudyTracker) -> None:
    """Compile all variants, then time them in turn, so that machine noise affects all alike.

    If any variant is missing, all are measured again: only times of one process are comparable.

    Args:
        tracker: an open study.
    """
    if len(tracker.results) == len(tracker.runs):
        return
    dataset = open_split(tracker.config, tracker.config.data.train_split)
    mesh = make_mesh()
    batches: dict[str, Any] = {}  # metadata encoder -> a batch in its format
    inputs: dict[str, Any] = {}  # run -> its batch
    steps: dict[str, Step] = {}
    for run in tracker.runs:
        tracker.console.rule(f"compiling {run.name}")
        with tracker.attempt(run):
            config = run.config
            assert config is not None
            claim_workdir(run.folder, config, dataset)
            schema = run_schema(config, dataset, run.folder)
            steps[run.name] = compile_step(build_program(config, schema, len(dataset), mesh))
            if (encoder := config.metadata.encoder) not in batches:
                batches[encoder] = one_batch(config, dataset, mesh)
            inputs[run.name] = batches[encoder]
    for run in sorted(
        (run for run in tracker.runs if run.name in steps),
        key=lambda run: steps[run.name].bytes or 0,
    ):
        step = steps.pop(run.name)
        with tracker.attempt(run):
            step.record_peak(inputs[run.name])
            steps[run.name] = step
    seconds = take_turns(steps, inputs, rounds=ROUNDS, steps=STEPS)
    reference = tracker.runs[0].name
    for run in tracker.runs:
        if run.name in steps:
            scores = step_scores(run, reference, steps, seconds, dataset)
            tracker.save_scores(run, dataset.schema.name, scores)
            tracker.finish(run)


def step_scores(
    run: StudyRun,
    reference: str,
    steps: Mapping[str, Step],
    seconds: Mapping[str, Sequence[Sequence[float]]],
    dataset: ShardDataset,
) -> list[Score]:
    """Return medians with quartiles, absolute and relative to the reference, round by round.

    Args:
        run: the run to describe.
        reference: name of the run that ratios refer to.
        steps: name of each run -> its compiled step.
        seconds: name of each run -> seconds of its steps, per round.
        dataset: the data that the batches came from.
    """
    config = run.config
    assert config is not None

    def score(protocol: str, metric: str, values: Sequence[float]) -> Score:
        low, middle, high = (float(q) for q in np.quantile(values, (0.25, 0.5, 0.75)))
        several = len(values) > 1
        return Score(
            dataset=dataset.schema.name,
            split=dataset.split,
            model=f"{run.variant.name} {config.image.encoder}",
            features="",
            protocol=protocol,
            metric=metric,
            value=middle,
            n=len(values),
            low=low if several else None,
            high=high if several else None,
        )

    own = seconds[run.name]
    scores = [score("timed", "step_seconds", [second for part in own for second in part])]
    if reference in steps:
        medians = [
            [float(np.median(part)) for part in parts] for parts in (own, seconds[reference])
        ]
        ratios = [one / other for one, other in zip(*medians, strict=True)]
        scores.append(score("timed", "relative_step_time", ratios))
    for protocol, name in (("compiled", "bytes"), ("allocated", "peak")):
        size = getattr(steps[run.name], name)
        if size is None:
            continue
        scores.append(score(protocol, f"{protocol}_bytes", [size]))
        if reference in steps and (other := getattr(steps[reference], name)):
            scores.append(score(protocol, f"relative_{protocol}_memory", [size / other]))
    return scores


STUDY = Study(
    name="efficiency",
    title="Time and memory of a training step",
    description=(
        "One training step of each method, relative to SimCLR: SatMIP with either metadata "
        "encoder, SatMIPS with one view shared by both losses, uncoupled SatMIPS with an extra "
        "view for SatMIP, metadata prediction and supervised training. Steps are timed in turn in "
        "one process, with the data already on the device. Memory is that of the compiled step "
        "and, if the device reports it, the peak that was allocated. The paper, time | memory: "
        "SimCLR 1 | 1, SatMIP 0.56 | 0.62, SatMIPS 1.05 | 1.11."
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
