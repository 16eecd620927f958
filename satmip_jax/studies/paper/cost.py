"""The cost of the comparison before it starts: trainings, images, and device-hours."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ml_collections import ConfigDict

from satmip_jax.bench.step import compile_step, one_batch
from satmip_jax.checkpoints.run_item import saved_steps
from satmip_jax.config.conversion import vary
from satmip_jax.config.training_length import total_steps
from satmip_jax.data.shard_dataset import ShardDataset
from satmip_jax.distributed.sharding import make_mesh
from satmip_jax.planning import memory
from satmip_jax.planning.accelerators import Accelerator
from satmip_jax.planning.dry_run import diagnose
from satmip_jax.planning.flops import step_flops
from satmip_jax.runtime.paths import AnyPath
from satmip_jax.studies.base import Variant
from satmip_jax.studies.paper.parts import Part
from satmip_jax.training.step import build_program

TIMED_STEPS = 3
CPU_LIMIT = 2e12  # FLOPs of a step that is timed on a CPU: some tens of seconds


@dataclass(frozen=True)
class Training:
    """One training of the comparison, with one seed.

    Attributes:
        name: of its run.
        config: of it.
        steps: all of them.
        done: steps that a checkpoint holds.
    """

    name: str
    config: ConfigDict
    steps: int
    done: int = 0

    @property
    def images(self) -> int:
        """Images seen by the steps that are left."""
        return (self.steps - self.done) * self.config.optimizer.batch_size


@dataclass(frozen=True)
class StepTimes:
    """Seconds of a training step by method.

    Attributes:
        seconds: method -> seconds; empty if they are not known.
        devices: number of devices.
        source: where they come from, for people.
        notes: problems and reasons.
    """

    seconds: Mapping[str, float]
    devices: int
    source: str
    notes: Sequence[str] = field(default_factory=tuple)

    def device_hours(self, trainings: Sequence[Training]) -> float | None:
        """Return the device-hours of the steps that are left; None if they are not known."""
        left = [(t.config.method.name, t.steps - t.done) for t in trainings]
        if any(steps and method not in self.seconds for method, steps in left):
            return None
        seconds = sum(steps * self.seconds[method] for method, steps in left if steps)
        return self.devices * seconds / 3600


def list_trainings(
    parts: Sequence[Part], seeds: Sequence[int], examples: int, runs: AnyPath | None
) -> list[Training]:
    """Return each training of the parts once.

    Args:
        parts: of the comparison.
        seeds: of every training.
        examples: number of training images.
        runs: folder of the runs; None to count all as not started.
    """
    variants: dict[str, Variant] = {}
    for part in parts:
        for variant in part.plan.variants if part.trains else ():
            if variant.config is not None:
                variants.setdefault(variant.run or variant.name, variant)
    trainings = []
    for name, variant in variants.items():
        assert variant.config is not None
        steps = total_steps(variant.config, examples)
        for seed in seeds:
            run = f"{name}-seed{seed}"
            saved = saved_steps(runs / run) if runs is not None else []
            config = vary(variant.config, {"seed": seed})
            trainings.append(Training(run, config, steps, min(max(saved, default=0), steps)))
    return trainings


def planned_times(
    trainings: Sequence[Training], accelerator: Accelerator, topology: str
) -> StepTimes:
    """Return the step times of a named accelerator, those of `satmip doctor` for the same configs.

    Args:
        trainings: of each method the first is compiled; it stands for those with fewer fields.
        accelerator: that the steps are compiled for.
        topology: of it.
    """
    seconds, notes, devices = {}, [], 1
    for method, training in _by_method(trainings).items():
        diagnosis = diagnose(training.config, accelerator=accelerator, topology=topology)
        notes += [f"{method}: {problem}" for problem in diagnosis.problems]
        if found := diagnosis.forecast:
            devices = found.devices
            if found.is_compiled:
                seconds[method] = found.step
    kind = "lower bound" if accelerator.gpu else "XLA's estimate"
    return StepTimes(seconds, devices, f"{accelerator.name}, {kind} of satmip doctor", notes)


def measured_times(trainings: Sequence[Training], dataset: ShardDataset) -> StepTimes:
    """Return the step times of this machine: a few steps of each method that is not complete.

    On a CPU, steps that would take long are not timed.

    Args:
        trainings: of the comparison.
        dataset: the train split.
    """
    mesh = make_mesh()
    device = mesh.devices.flat[0]
    where = f"{mesh.size} x {device.device_kind}"
    seconds, notes = {}, []
    for method, training in _by_method([t for t in trainings if t.done < t.steps]).items():
        schema, examples = memory.schema_of(training.config, dataset)
        program = build_program(training.config, schema, examples, mesh)
        flops = sum(step_flops(program).values())
        if device.platform == "cpu" and flops > CPU_LIMIT:
            notes.append(
                f"a step of {method} has {flops:.2g} FLOPs, too many to be timed on a CPU: name a "
                "device with --accelerator"
            )
            continue
        step = compile_step(program)
        seconds[method] = statistics.median(
            step.time(one_batch(training.config, dataset, mesh), TIMED_STEPS)
        )
    return StepTimes(seconds, mesh.size, f"{where}, {TIMED_STEPS} steps timed", notes)


def _by_method(trainings: Sequence[Training]) -> dict[str, Training]:
    found: dict[str, Training] = {}
    for training in trainings:
        found.setdefault(training.config.method.name, training)
    return found
