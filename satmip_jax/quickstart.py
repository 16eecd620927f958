"""From nothing to results: data, shards, training, scores and the page that shows them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from satmip_jax.config.loading import config_folder, load_config
from satmip_jax.data.shard_format import SCHEMA_FILE
from satmip_jax.evaluation.evaluate import evaluate, evaluate_baseline
from satmip_jax.evaluation.results import print_scores, write_scores
from satmip_jax.prepare.run import prepare
from satmip_jax.report.page import write_report
from satmip_jax.sources.base import Source, SourceError
from satmip_jax.sources.registry import open_source
from satmip_jax.training.loop import train

TRAIN, VAL = 3000, 800  # synthetic scenes


def quickstart(out: Path, data: str | None = None, overrides: Sequence[str] = ()) -> Path:
    """Run the whole way and return the path of the page.

    Args:
        out: folder for shards, run and page; what is done is not done again.
        overrides: options of the config, such as "--config.optimizer.images=2000".
        data: a prepared folder, or a data set as published (fMoW-RGB's folders, EuroSAT's zips
            with a table of coordinates); synthetic scenes by default.
    """
    console = Console()
    shards = Path(data) if data and (Path(data) / SCHEMA_FILE).exists() else out / "shards"
    if shards == out / "shards":
        console.rule("1/4  data")
        source = recognise(Path(data)) if data else synthetic(out / "scenes")
        prepare(source, shards, image_size=64).show(console)

    console.rule("2/4  training")
    path = config_folder() / "quickstart.py"
    config = load_config(str(path), [f"--config.data.dir={shards.resolve()}", *overrides])
    run = out / "run"
    train(config, run)

    console.rule("3/4  scores")
    quick: dict[str, Any] = {"protocols": ["knn5"], "block": 0}  # seconds; the rest takes minutes
    rows = evaluate(run, str(shards), **quick)
    rows += evaluate(run, str(shards), init="random", **quick)
    rows += evaluate_baseline("colour", str(shards), **quick)
    rows += evaluate_baseline("fields", str(shards), **quick)
    write_scores(run / "evaluation.json", rows)
    print_scores(rows, console=console)

    console.rule("4/4  report")
    page = write_report([run], out / "page" / "index.html", data=shards)
    console.print(f"Open [bold]{page}[/bold] in a browser; scores and checkpoints are in {run}.")
    return page


def synthetic(folder: Path) -> Source:
    """The synthetic data set of the quickstart, written to `folder` where it is not there yet."""
    return open_source("synthetic", [folder], train=TRAIN, val=VAL, size=96)


def recognise(folder: Path) -> Source:
    """Open a folder of published data as what it looks like.

    Raises:
        SourceError: it looks like neither of them.
    """
    if next(folder.glob("*/*/*/*_rgb.json"), None):
        return open_source("fmow", [folder], classes="folders")
    csv_and_zips = next(folder.glob("*.csv"), None) and next(folder.glob("*.zip"), None)
    if csv_and_zips or next(folder.glob("EuroSAT*.zip"), None):
        return open_source("eurosat", [folder])
    raise SourceError(
        f"{folder} holds neither {SCHEMA_FILE} (prepared data), nor fMoW-RGB's folders, nor "
        "EuroSAT's zips: convert it with `satmip prepare` and give the result as --data"
    )
