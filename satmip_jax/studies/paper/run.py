"""The run of the paper's comparison: the cost, the parts, and the page with tables and verdicts.

DIR/claims.md, claims.json      each claim of the paper, with the verdict of these runs
DIR/tables/NAME.md, NAME.csv    its tables, with the published numbers beside
DIR/figures/NAME.svg, NAME.png
DIR/report.html                 all of it on one page
DIR/paper.json                  the same, for `satmip report`
DIR/PART/                       the study of each part, see `studies.tracker`
DIR/runs/                       the runs that the parts share
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike

from ml_collections import ConfigDict
from rich.console import Console
from rich.table import Table

from satmip_jax.config.validation import validate
from satmip_jax.data.shard_dataset import ShardDataset
from satmip_jax.distributed.multihost import is_main_process
from satmip_jax.evaluation.protocols import check_protocols
from satmip_jax.metadata.schema import Schema
from satmip_jax.planning import memory
from satmip_jax.planning.accelerators import Accelerator
from satmip_jax.runtime.paths import AnyPath
from satmip_jax.studies.base import MethodConfigs, StudyError
from satmip_jax.studies.eval_data import EvalData, by_name, of_training
from satmip_jax.studies.paper.claims import Judgement
from satmip_jax.studies.paper.cost import (
    StepTimes,
    Training,
    list_trainings,
    measured_times,
    planned_times,
)
from satmip_jax.studies.paper.output import claim_row, write_results
from satmip_jax.studies.paper.parts import PARTS, Part, plan_parts
from satmip_jax.studies.paper.scores import collect
from satmip_jax.studies.scoring import train_and_score
from satmip_jax.studies.tracker import StudyTracker
from satmip_jax.training.setup import open_split
from satmip_jax.training.workdir import training_folder

QUICK = "knn5"  # the protocol that is always computed


@dataclass(frozen=True)
class PaperOptions:
    """What is compared, and how.

    Attributes:
        parts: keys of `PARTS`.
        seeds: number of runs per training.
        transfer: prepared folders to score on beside the data of the training.
        protocol: of the scores in tables and claims; kNN is computed beside it.
        block: side of the cells of the blocked scores, degrees; 0 for none.
        plan_only: print the cost and stop.
        accelerator: to print the cost for, and stop; None for this machine.
        topology: of that accelerator, see `planning.topology`.
        method_configs: config of each method that has a recipe of its own.
    """

    parts: Sequence[str] = tuple(PARTS)
    seeds: int = 1
    transfer: Sequence[str] = ()
    protocol: str = "linear"
    block: float = 0.0
    plan_only: bool = False
    accelerator: Accelerator | None = None
    topology: str = ""
    method_configs: Mapping[str, ConfigDict] = field(default_factory=dict)


def run_paper(
    config: ConfigDict,
    out: str | PathLike[str],
    options: PaperOptions,
    *,
    console: Console | None = None,
) -> None:
    """Run the paper's comparison in the folder `out`; a repeated call resumes it.

    Args:
        config: base config; `config.data.dir` is the data of the training.
        out: folder for the runs, tables, figures and verdicts.
        options: what is compared.
        console: where to print; by default the terminal, on the main process only.

    Raises:
        StudyError: the comparison cannot run with these arguments, or some runs failed; all others
            are complete.
        Interrupted: training received a stop signal and saved its state.
    """
    folder = training_folder(out, "--out")
    console = console or Console(quiet=not is_main_process())
    validate(config)
    configs = MethodConfigs(config, options.method_configs)
    seeds = range(config.seed, config.seed + options.seeds)
    if options.accelerator and not config.data.dir:
        schema = _planning_schema(config)
        examples, dataset, data = schema.splits[config.data.train_split], None, {}
    else:
        dataset = open_split(config, config.data.train_split)
        schema, examples = dataset.schema, len(dataset)
        data = eval_data(config, options)
    parts = plan_parts(options.parts, configs, schema)
    for part in parts:
        for variant in part.plan.variants:
            if variant.config is not None:
                validate(variant.config)
    trainings = list_trainings(parts, seeds, examples, folder / "runs")
    _print_plan(console, parts, trainings, options)
    if options.accelerator:
        times = planned_times(trainings, options.accelerator, options.topology)
    elif dataset is not None:
        times = measured_times(trainings, dataset)
    _print_cost(console, trainings, times)
    if options.plan_only or options.accelerator or dataset is None:
        return

    home, *transfers = data
    failures: dict[AnyPath, str] = {}
    trackers = [
        StudyTracker(
            folder / part.study.name,
            part.study,
            part.plan,
            configs,
            seeds=seeds if part.trains else seeds[:1],
            data=data if part.trains else {home: of_training(config)},
            train_examples=examples,
            console=console,
            runs_folder=folder / "runs" if part.trains else None,
            failures=failures,
        )
        for part in parts
    ]
    for tracker in trackers:
        tracker.open()
    for tracker in trackers:
        console.rule(f"[bold]{tracker.study.title}[/bold]")
        complete = len(tracker.results) == len(tracker.runs)
        (tracker.study.measure or train_and_score)(tracker)
        if not complete or tracker is trackers[-1]:
            scores = collect(trackers, home, transfers, options.protocol)
            judgements = write_results(folder, scores, trackers)
    _print_claims(console, judgements)
    files = "claims.md, tables, figures, report.html"
    console.print(f"{folder}: {files}", markup=False, soft_wrap=True)
    if failures:
        raise StudyError(
            f"{len(failures)} runs failed: {', '.join(path.name for path in failures)}; claims that"
            " need them are not measurable. Run the same command again to retry"
        )


def eval_data(config: ConfigDict, options: PaperOptions) -> dict[str, EvalData]:
    """Return how each data set is scored, by name; that of the training is the first.

    A transfer set with a test split is scored on it, its strengths chosen on val; others on val.

    Raises:
        StudyError: a data set without classes, or two of one name.
        EvaluationError: an unknown protocol.
    """
    protocols = tuple(dict.fromkeys((QUICK, options.protocol)))
    check_protocols(protocols)
    entries = [replace(of_training(config), leak_free=True)]
    for folder in dict.fromkeys(options.transfer):
        splits = ShardDataset(folder, "train").schema.splits
        split = "test" if "test" in splits else "val"
        tune = "val" if split == "test" and "val" in splits else None
        entries.append(EvalData(folder, split, "train", tune))
    return by_name(replace(e, protocols=protocols, block=options.block) for e in entries)


def _planning_schema(config: ConfigDict) -> Schema:
    """Return a schema of the size of fMoW, with values of every field."""
    schema, examples = memory.schema_of(config, None)
    known = {
        name: replace(stats, count=examples, std=(0.5,) * len(stats.std))
        for name, stats in schema.fields.items()
    }
    return replace(schema, name="fmow", fields=known)


def _print_plan(
    console: Console,
    parts: Sequence[Part],
    trainings: Sequence[Training],
    options: PaperOptions,
) -> None:
    table = Table(title="The paper's comparison", title_justify="left")
    for head in ("part", "variants", "runs"):
        table.add_column(head)
    for part in parts:
        names = [variant.run or variant.name for variant in part.plan.variants if variant.config]
        runs = ", ".join(dict.fromkeys(names)) if part.trains else "measured, not trained"
        table.add_row(part.study.name, str(len(part.plan.variants)), runs)
    console.print(table)
    for part in parts:
        for variant, reason in part.plan.skipped.items():
            console.print(f"{part.study.name}: skipped {variant}: {reason}", markup=False)
    different = len(trainings) // options.seeds
    images = sum(t.steps * t.config.optimizer.batch_size for t in trainings)
    console.print(
        f"{len(trainings)} runs: {different} trainings with {options.seeds} seed(s) each, "
        f"{images:,} images",
        markup=False,
    )


def _print_cost(console: Console, trainings: Sequence[Training], times: StepTimes) -> None:
    left = [training for training in trainings if training.images]
    images = sum(training.images for training in left)
    for note in times.notes:
        console.print(f"note: {note}", markup=False)
    hours = times.device_hours(trainings)
    cost = "unknown" if hours is None else f"{hours:,.2f} device-hours"
    console.print(
        f"cost: {cost} for {len(left)} runs and {images:,} images that are left ({times.source}; "
        "without compilation and scoring)",
        markup=False,
        soft_wrap=True,
    )


def _print_claims(console: Console, judgements: Sequence[Judgement]) -> None:
    table = Table(title="Claims of the paper", title_justify="left")
    for head in ("claim", "verdict", "ours (95 % interval)", "paper"):
        table.add_column(head, overflow="fold")
    for judgement in judgements:
        row = claim_row(judgement)
        table.add_row(row.claim, row.verdict, row.ours, row.published)
    console.print(table)
