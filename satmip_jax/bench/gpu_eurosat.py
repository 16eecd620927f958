"""Trainings on EuroSAT for the report on a GPU: methods, sizes, splits and seeds in one process.

The number of epochs is chosen once, from the measured steps, so that all runs fit in the time. A
stopped call is resumed by the next one: at the run that is missing, from its last checkpoint.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from satmip_jax.bench.gpu_plan import METHODS, SIZES, epochs
from satmip_jax.bench.timing import Measurement, over_rounds, write_measurements
from satmip_jax.config.loading import load_config
from satmip_jax.data.shard_dataset import ShardDataset
from satmip_jax.data.shard_format import SCHEMA_FILE
from satmip_jax.errors import SatmipError
from satmip_jax.evaluation.evaluate import evaluate
from satmip_jax.metadata.schema import Schema
from satmip_jax.runtime.commands import LocalPath
from satmip_jax.training.loop import train
from satmip_jax.training.metrics_log import read_rows

SEEDS = 3
BATCH = 512
LEAST = 30.0  # seconds left to start a run
LAST = "training and scores"  # the last row of a complete run


class OutOfTimeError(SatmipError):
    """Runs are left; the next call continues with them."""


@dataclass(frozen=True)
class Run:
    """One training and its scores.

    Attributes:
        seed: seed of the training.
        size: a size of configs/eurosat.py.
        split: name of the split.
        method: name of the method.
    """

    seed: int
    size: str
    split: str
    method: str

    @property
    def name(self) -> str:
        """Name of its workdir."""
        return f"{self.size}-{self.split}-{self.method}-seed{self.seed}"


def runs(splits: list[str], *, tiny: bool) -> list[Run]:
    """Return the runs in their order: a first seed of all of them, then the next seed."""
    sizes, seeds = (["cpu"], 1) if tiny else (list(SIZES), SEEDS)
    splits = splits[:1] if tiny else splits
    return [
        Run(seed, size, split, method)
        for seed in range(seeds)
        for size in sizes
        for split in splits
        for method in METHODS
    ]


def choose_epochs(
    path: Path, planned: list[Run], schemas: Mapping[str, Schema], seconds: float
) -> int:
    """Return the epochs of all runs, chosen by the first call and kept in `path`."""
    if path.is_file():
        return int(json.loads(path.read_text(encoding="utf-8"))["epochs"])
    rates = {size: _rates(path.with_name(f"step-{size}.jsonl")) for size in SIZES}
    costs = [
        schemas[run.split].splits["train"] / rates[run.size].get(run.method, 1000.0)
        for run in planned
    ]
    chosen = epochs(seconds, costs)
    path.write_text(json.dumps({"epochs": chosen}) + "\n", encoding="utf-8")
    return chosen


def _rates(path: Path) -> dict[str, float]:
    """Return images per second by method, of a file of `satmip bench step`."""
    if not path.is_file():
        return {}
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {row["variant"]: row["value"] for row in rows if row["metric"] == "image throughput"}


def bench(
    out: Path, data: Mapping[str, Path], *, seconds: float, done: set[str], tiny: bool
) -> Iterator[Measurement]:
    """Train and score what is missing.

    Args:
        out: folder of the report.
        data: split -> prepared folder.
        seconds: time for all.
        done: names of runs that are complete.
        tiny: tiny sizes.

    Yields:
        The scores and the training throughput of each run.

    Raises:
        OutOfTimeError: runs are left and no time.
    """
    end = time.monotonic() + seconds
    schemas = {split: Schema.load(folder / SCHEMA_FILE) for split, folder in data.items()}
    planned = runs(list(data), tiny=tiny)
    length = 1 if tiny else choose_epochs(out / "epochs.json", planned, schemas, seconds)
    for number, run in enumerate(planned):
        if run.name in done:
            continue
        if end - time.monotonic() < LEAST:
            raise OutOfTimeError(f"{len(planned) - number} of {len(planned)} runs are left")
        click.echo(f"{number + 1}/{len(planned)}  {run.name}, {length} epochs")
        yield from _train_and_score(out, data[run.split], run, length, tiny)


def _train_and_score(
    out: Path, data: Path, run: Run, length: int, tiny: bool
) -> Iterator[Measurement]:
    batch = 16 if tiny else BATCH
    overrides = {
        "data.dir": data,
        "seed": run.seed,
        "optimizer.batch_size": batch,
        "optimizer.images": 32 if tiny else 0,
        "optimizer.epochs": float(length),
        "checkpoint.every": 100_000,
        "eval.every": 0,
        "dtype": "float32" if tiny else "bfloat16",
    }
    spec = f"eurosat:{run.method},{run.size}" + (",runlocal" if tiny else "")
    config = load_config(spec, [f"--config.{key}={value}" for key, value in overrides.items()])
    workdir = out / "runs" / run.name
    start = time.monotonic()
    train(config, workdir)
    schema = ShardDataset(data, "train").schema
    scored = "test" if "test" in schema.splits else "val"
    scores = evaluate(workdir, data, split=scored, protocols=["knn5"], block=0)
    facts: dict[str, Any] = {"run": run.name, "encoder": config.image.encoder, "split": run.split}
    facts |= {"scored": scored, "seed": run.seed, "epochs": length}
    for score in scores:
        metric = f"{score.protocol} {score.features} {score.metric}"
        yield Measurement("eurosat", run.method, metric, 100 * score.value, "%", facts=facts)
    rows = read_rows(workdir / "metrics.jsonl")
    if rates := [row["images_per_second"] for row in rows if row.get("images_per_second")]:
        row = over_rounds(rates)
        yield Measurement("eurosat", run.method, "training", unit="images/s", facts=facts, **row)
    seconds = time.monotonic() - start
    yield Measurement("eurosat", run.method, LAST, seconds, "s", facts=facts)


def complete_runs(path: Path) -> set[str]:
    """Return the names of the runs whose rows are all in a file; drop the rows of others."""
    if not path.is_file():
        return set()
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:  # cut off when the process was killed
            continue
    done = {row["run"] for row in rows if row["metric"] == LAST}
    kept = [json.dumps(row) + "\n" for row in rows if row["run"] in done]
    path.write_text("".join(kept), encoding="utf-8")
    return done


def keep_small_model(out: Path, done: set[str]) -> Path | None:
    """Pack the workdir of a small SatMIPS model; None if none is complete yet."""
    for folder in sorted((out / "runs").glob("cpu-*-satmips-seed0")):
        if folder.name not in done:
            continue
        archive = shutil.make_archive(str(out / "small_satmips"), "gztar", folder)
        return Path(archive)
    return None


@click.command()
@click.option("--out", type=LocalPath(path_type=Path, file_okay=False), required=True)
@click.option("--data", multiple=True, metavar="SPLIT=DIR", help="Prepared folders, by split.")
@click.option("--seconds", type=float, required=True, help="Time for all runs.")
@click.option("--tiny", is_flag=True, help="Tiny sizes, one split and seed.")
def main(out: Path, data: tuple[str, ...], seconds: float, tiny: bool) -> None:
    """Train and score on EuroSAT; the same command resumes."""
    pairs = [text.partition("=") for text in data]
    folders = {
        split: Path(folder) for split, _, folder in pairs if (Path(folder) / SCHEMA_FILE).is_file()
    }
    if not folders:
        raise click.ClickException("no prepared EuroSAT: see the parts named prepare")
    path = out / "eurosat.jsonl"
    done = complete_runs(path)
    try:
        measurements = bench(out, folders, seconds=seconds, done=done, tiny=tiny)
        write_measurements(measurements, path, Console())
    except SatmipError as error:
        raise click.ClickException(str(error)) from error
    finally:
        if (archive := keep_small_model(out, complete_runs(path))) is not None:
            click.echo(f"the small SatMIPS model: {archive}")


if __name__ == "__main__":
    main()
