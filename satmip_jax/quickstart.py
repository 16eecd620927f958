"""The full pipeline in one call: data, shards, training, scores and a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from satmip_jax.config.loading import config_folder, load_config
from satmip_jax.data.shard_format import SCHEMA_FILE
from satmip_jax.evaluation.evaluate import evaluate, evaluate_baseline
from satmip_jax.evaluation.results import Score, print_scores, write_scores
from satmip_jax.prepare.run import prepare
from satmip_jax.report.page import write_report
from satmip_jax.sources.base import Source, SourceError
from satmip_jax.sources.registry import open_source
from satmip_jax.sources.synthetic.bayes import accuracy
from satmip_jax.training.loop import train

TRAIN, VAL = 3000, 800  # synthetic scenes


def quickstart(out: Path, data: str | None = None, overrides: Sequence[str] = ()) -> Path:
    """Prepare data, train, evaluate and write a report.

    Args:
        out: Folder for shards, run and report; finished steps are not repeated.
        data: A prepared folder, or a data set as published (folders of fMoW-RGB, zips of EuroSAT
            with a table of locations); synthetic scenes by default.
        overrides: Values of the config, such as "--config.optimizer.images=2000".

    Returns:
        The path of the HTML report.

    Raises:
        SourceError: `data` is none of these.
        SatmipError: Another step failed; the message says what to do.
    """
    console = Console()
    shards = Path(data) if data and (Path(data) / SCHEMA_FILE).exists() else out / "shards"
    if shards == out / "shards":
        console.rule("1/4  data")
        source = detect_source(Path(data)) if data else synthetic(out / "scenes")
        prepare(source, shards, image_size=64).show(console)

    console.rule("2/4  training")
    path = config_folder() / "quickstart.py"
    config = load_config(str(path), [f"--config.data.dir={shards.resolve()}", *overrides])
    run = out / "run"
    train(config, run)

    console.rule("3/4  scores")
    quick: dict[str, Any] = {"protocols": ["knn5"], "block": 0}  # seconds instead of minutes
    rows = evaluate(run, str(shards), fields=["all", "all-leak"], **quick)
    rows += evaluate(run, str(shards), init="random", **quick)
    rows += evaluate_baseline("colour", str(shards), **quick)
    rows += evaluate_baseline("fields", str(shards), **quick)
    if not data:
        rows = add_ceiling(rows)
    write_scores(run / "evaluation.json", rows)
    print_scores(rows, console=console)

    console.rule("4/4  report")
    page = write_report([run], out / "page" / "index.html", data=shards)
    console.print(f"Open [bold]{page}[/bold] in a browser; scores and checkpoints are in {run}.")
    return page


def synthetic(folder: Path) -> Source:
    """Open the synthetic data set of the quickstart; generate it if it does not exist."""
    return open_source("synthetic", [folder], train=TRAIN, val=VAL, size=96)


def add_ceiling(rows: Sequence[Score]) -> list[Score]:
    """Note beside the accuracy of metadata how much they reveal of the synthetic scenes."""
    everything, without = accuracy(seed=0, split="val", images=VAL)
    note = (
        "Accuracy of these scenes' metadata, by Bayes' rule on the probabilities of the generator: "
        f"{100 * everything:.1f} % from all fields, {100 * without:.1f} % without those that "
        'reveal the ground width ("all-leak"). No encoder of metadata can be expected to do better'
    )
    return [
        replace(row, note=note) if row.metric == "accuracy" and row.features != "image" else row
        for row in rows
    ]


def detect_source(folder: Path) -> Source:
    """Open a folder of fMoW-RGB or EuroSAT, as published.

    Raises:
        SourceError: The folder looks like neither.
    """
    if next(folder.glob("*/*/*/*_rgb.json"), None):
        return open_source("fmow", [folder], classes="folders")
    csv_and_zips = next(folder.glob("*.csv"), None) and next(folder.glob("*.zip"), None)
    if csv_and_zips or next(folder.glob("EuroSAT*.zip"), None):
        return open_source("eurosat", [folder])
    raise SourceError(
        f"{folder} holds neither {SCHEMA_FILE} (prepared data), nor folders of fMoW-RGB, nor zips "
        "of EuroSAT: convert it with `satmip prepare` and give the result as --data"
    )
