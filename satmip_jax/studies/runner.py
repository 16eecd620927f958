"""The one way through a study: plan, do what is not done, write the table and the plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from satmip_jax.config.validation import validate
from satmip_jax.data.shard_dataset import ShardDataset
from satmip_jax.distributed.multihost import is_main_process
from satmip_jax.studies import table
from satmip_jax.studies.base import MethodConfigs, StudyError
from satmip_jax.studies.registry import open_study
from satmip_jax.studies.scoring import train_and_score
from satmip_jax.studies.tracker import StudyTracker
from satmip_jax.training.setup import open_split


def run_study(
    name: str,
    config: ConfigDict,
    out: str | Path,
    *,
    recipes: Mapping[str, ConfigDict] | None = None,
    seeds: int = 1,
    eval_data: Sequence[str] = (),
    options: Mapping[str, Any] | None = None,
    console: Console | None = None,
) -> None:
    """Run a study in the folder `out`; called again with the same arguments it goes on.

    Args:
      name: a key of `STUDIES`.
      config: what the variants start from; `config.seed` is the first seed.
      recipes: method -> what variants of that method start from instead, see
        `config.load_method_configs`.
      seeds: how many runs of every variant.
      eval_data: prepared folders to score on; by default the training data.
      options: of the study itself, see `Study.options`.

    Raises:
      StudyError: it cannot be run as asked for, or some variants failed; the others are done.
      Interrupted: training was asked to stop and has saved its state.

    Example:
      >>> run_study("fields", load_config("configs/eurosat.py:satmip,cpu"), "studies/fields")
    """
    console = console or Console(quiet=not is_main_process())
    study = open_study(name)
    validate(config)
    dataset = open_split(config, config.data.train_split)
    if unknown := set(options or ()) - set(study.options):
        raise StudyError(
            f"the study {name!r} has no option {', '.join(sorted(unknown))}; it has: "
            f"{', '.join(study.options) or 'none'}"
        )
    start = MethodConfigs(config, recipes or {})
    plan = study.plan(start, dataset.schema, **(options or {}))
    for variant in plan.variants:
        if variant.config is not None:
            validate(variant.config)
    book = StudyTracker(
        Path(out),
        study,
        plan,
        start,
        seeds=range(config.seed, config.seed + (1 if study.measure else seeds)),
        data={dataset.schema.name: config.data.dir}
        if study.measure
        else labelled(config, eval_data or [config.data.dir]),
        examples=len(dataset),
        console=console,
    )
    book.open()
    done = f", {len(book.rows)} done before" if book.rows else ""
    console.print(f"[bold]{study.title}[/bold]: {len(book.units)} in all{done}")
    for method, departures in book.departures.items():
        console.print(f"{method} by its own recipe: {'; '.join(departures)}", markup=False)
    for left_out, reason in plan.skipped.items():
        console.print(f"skipped {left_out}: {reason}", markup=False)
    (study.measure or train_and_score)(book)
    table.show(study, table.summarize(study, book.table()), console)
    files = "study.json, results.csv, results.parquet, plot.svg, plot.png"
    console.print(f"{book.folder}: {files}", markup=False, soft_wrap=True)
    if book.failed:
        show_failures(book)
        raise StudyError(
            f"{len(book.failed)} of {len(book.units)} failed, the others are in the table; "
            "the same command tries them again"
        )


def labelled(config: ConfigDict, folders: Sequence[str]) -> dict[str, str]:
    """Name of each data set -> its folder, after a look at whether it can be scored on.

    Raises:
      StudyError: no labels, or two of one name, whose scores could not be told apart.
      ShardError: no prepared data, or not these splits.
    """
    data: dict[str, str] = {}
    for folder in dict.fromkeys(folders):
        for split in (config.data.train_split, config.data.val_split):
            schema = ShardDataset(folder, split).schema
        if not schema.classes:
            raise StudyError(f"{folder} has no classes: a study scores on labelled data")
        if schema.name in data:
            raise StudyError(
                f"{folder} and {data[schema.name]} are both named {schema.name!r}: prepare one of "
                "them with another --name"
            )
        data[schema.name] = folder
    return data


def show_failures(book: StudyTracker) -> None:
    """A table of what failed and why."""
    failures = Table("failed", "reason", title="failures")
    for name, (_, reason) in book.failed.items():
        failures.add_row(name, escape(reason.splitlines()[0] if reason else ""))
    book.console.print(failures)
