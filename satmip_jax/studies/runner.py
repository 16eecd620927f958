"""The run of a study: plan the variants, run what is missing, write the table and the plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from os import PathLike
from typing import Any

from ml_collections import ConfigDict
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from satmip_jax.config.validation import validate
from satmip_jax.distributed.multihost import is_main_process
from satmip_jax.studies import table
from satmip_jax.studies.base import MethodConfigs, StudyError
from satmip_jax.studies.eval_data import by_name, of_training
from satmip_jax.studies.registry import open_study
from satmip_jax.studies.scoring import train_and_score
from satmip_jax.studies.tracker import StudyTracker
from satmip_jax.training.setup import open_split
from satmip_jax.training.workdir import training_folder


def run_study(
    name: str,
    config: ConfigDict,
    out: str | PathLike[str],
    *,
    method_configs: Mapping[str, ConfigDict] | None = None,
    seeds: int = 1,
    eval_data: Sequence[str] = (),
    options: Mapping[str, Any] | None = None,
    console: Console | None = None,
) -> None:
    """Run a study in the folder `out`; a repeated call resumes it.

    Args:
        name: a key of `STUDIES`.
        config: base config of the variants; `config.seed` is the first seed.
        out: folder for the runs, the table and the plot.
        method_configs: method -> config to start its variants from instead of `config`, see
            `config.load_method_configs`.
        seeds: number of runs per variant.
        eval_data: prepared folders to score on; by default the training data.
        options: options of the study, see `Study.options`.
        console: where to print; by default the terminal, on the main process only.

    Raises:
        StudyError: the study cannot run with these arguments, or some runs failed; all others are
            complete.
        Interrupted: training received a stop signal and saved its state.

    Example:
        >>> from satmip_jax.studies.runner import run_study
        >>> run_study("fields", config, "studies/fields")  # doctest: +SKIP
    """
    folder = training_folder(out, "--out")
    console = console or Console(quiet=not is_main_process())
    study = open_study(name)
    validate(config)
    dataset = open_split(config, config.data.train_split)
    configs = MethodConfigs(config, method_configs or {})
    study.check_options(options or {})
    plan = study.plan(configs, dataset.schema, **(options or {}))
    for variant in plan.variants:
        if variant.config is not None:
            validate(variant.config)
    if study.measure:
        seeds = 1
        data = {dataset.schema.name: of_training(config)}
    else:
        own = of_training(config)
        data = by_name([replace(own, folder=f) for f in dict.fromkeys(eval_data)] or [own])
    tracker = StudyTracker(
        folder,
        study,
        plan,
        configs,
        seeds=range(config.seed, config.seed + seeds),
        data=data,
        train_examples=len(dataset),
        console=console,
    )
    tracker.open()
    _print_plan(tracker)
    (study.measure or train_and_score)(tracker)
    table.print_summary(study, table.summarize(study, tracker.table()), console)
    files = "study.json, results.csv, results.parquet, plot.svg, plot.png"
    console.print(f"{tracker.folder}: {files}", markup=False, soft_wrap=True)
    if tracker.failed:
        _print_failures(tracker)
        raise StudyError(
            f"{len(tracker.failed)} of {len(tracker.runs)} runs failed; the others are in the "
            "table; run the same command again to retry"
        )


def _print_plan(tracker: StudyTracker) -> None:
    console = tracker.console
    done = f", {len(tracker.results)} already complete" if tracker.results else ""
    console.print(f"[bold]{tracker.study.title}[/bold]: {len(tracker.runs)} runs{done}")
    for method, changes in tracker.recipe_differences.items():
        console.print(f"{method} has its own recipe: {'; '.join(changes)}", markup=False)
    for variant, reason in tracker.plan.skipped.items():
        console.print(f"skipped {variant}: {reason}", markup=False)


def _print_failures(tracker: StudyTracker) -> None:
    failures = Table("failed", "reason", title="failures")
    for name, (_, reason) in tracker.failed.items():
        failures.add_row(name, escape(reason.splitlines()[0] if reason else ""))
    tracker.console.print(failures)
