"""A run folder, written by `satmip train` and `satmip evaluate`: its content and key facts."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from satmip_jax.config import defaults as configs
from satmip_jax.config.conversion import differences, from_json, to_json
from satmip_jax.config.training_length import total_steps
from satmip_jax.errors import ConfigError
from satmip_jax.evaluation.results import Score, read_scores
from satmip_jax.metadata.schema import Schema
from satmip_jax.objectives import build_method, method_title
from satmip_jax.report.files import ReportError, read_text
from satmip_jax.report.hardware import history as machines
from satmip_jax.report.section import Part
from satmip_jax.runtime.paths import AnyPath
from satmip_jax.training.metrics_log import METRICS_FILE, STARTS_FILE
from satmip_jax.training.metrics_log import read_rows as read_log

CONFIG_FILE = "config.json"


@dataclass(frozen=True)
class Run:
    """The content of a run folder.

    Attributes:
        name: short name of the folder, unique on the page.
        folder: path of the folder.
        config: config of the run.
        schema: schema of the training data; None if the run ended before it was written.
        history: rows of metrics.jsonl, in order.
        starts: rows of environment.jsonl, hardware and versions from a step on.
        scores: rows of evaluation.json.
    """

    name: str
    folder: AnyPath
    config: ConfigDict
    schema: Schema | None
    history: Sequence[dict[str, Any]]
    starts: Sequence[dict[str, Any]]
    scores: Sequence[Score]

    @property
    def title(self) -> str:
        """Method, encoder and data set."""
        method = method_title(self.config.method.name)
        data = self.schema.name if self.schema else Path(self.config.data.dir).name
        return f"{method} {self.config.image.encoder} on {data}"

    @property
    def contrastive(self) -> frozenset[str]:
        """Names of the method's contrastive losses."""
        return frozenset(build_method(self.config).scores(self.config.optimizer.batch_size))


def read_run(folder: AnyPath, name: str) -> Run:
    """Read a run folder; the content of missing files is empty.

    Args:
        folder: workdir of `satmip train`.
        name: name of the run on the page.

    Raises:
        ReportError: the config or the metrics cannot be read; the message names the file.
        ResultsError: the scores cannot be read.
        SchemaError: the schema cannot be read.
    """
    path = folder / CONFIG_FILE
    try:
        config = from_json(read_text(path))
        build_method(config)  # refuses unknown methods and invalid options
    except (ConfigError, RecursionError) as error:
        raise ReportError(f"{path}: {error}") from None
    schema, scores = folder / "schema.json", folder / "evaluation.json"
    if scores.is_file():
        read_text(scores)  # refuses large files
    return Run(
        name,
        folder,
        config,
        Schema.load(schema) if schema.is_file() else None,
        _read_log(folder / METRICS_FILE),
        _read_log(folder / STARTS_FILE),
        read_scores(scores) if scores.is_file() else [],
    )


def _read_log(path: AnyPath) -> list[dict[str, Any]]:
    """Return the rows of a log that have a step; none if there is no file."""
    if not path.is_file():
        return []
    read_text(path)  # refuses large files
    return [row for row in read_log(path) if is_number(row["step"])]


def facts(run: Run) -> list[tuple[str, str]]:
    """Return the key facts of a run from its config, schema and metrics.

    Returns:
        (name, value) pairs.
    """
    config = run.config
    batch = config.optimizer.batch_size
    rows = [("image encoder", f"{config.image.encoder}, {config.image.size} px, {config.dtype}")]
    if config.image.init:
        rows.append(("image encoder began with", config.image.init))
    for step in config.optimizer.extended_from:
        rows.append(("extended", f"at step {step:,}"))
    negatives: dict[str, int] = {}
    if run.schema:
        method = build_method(config)
        negatives = method.negatives(batch)
        if method.encodes_metadata(run.schema):
            fields = len(run.schema.select_fields(config.metadata.fields))
            encoder = f"{config.metadata.encoder}, {config.metadata.fields} ({fields} fields)"
            rows.append(("metadata encoder", encoder))
        splits = ", ".join(f"{count:,} {split}" for split, count in run.schema.splits.items())
        rows.append(("data", f"{run.schema.name}: {splits}"))
    if done := _steps_done(run.history):
        planned = ""
        if run.schema and (count := run.schema.splits.get(config.data.train_split)):
            total = total_steps(config, count)
            planned = f" of {total * batch:,}" if done < total else ""
        steps = f"{done:,} steps of {batch:,}"
        rows.append(("images seen", f"{done * batch:,}{planned} ({steps})"))
    if rates := _rates(run.history):
        seconds = _seconds(rates, batch)
        rows.append(("training time", f"{_clock(seconds)}, without evaluation"))
        rate = statistics.median(rate for _, rate in rates)
        rows.append(("throughput", f"{rate:,.0f} images/s (median)"))
    if negatives:
        counts = ", ".join(f"{method_title(name)} {n:,}" for name, n in negatives.items())
        rows.append(("negatives per anchor", counts))
    rows.append(("seed", str(config.seed)))
    return rows + machines(run.starts)


def fields_used(run: Run) -> str:
    """Return the selection of metadata fields that the run's method uses; "" if none."""
    uses = build_method(run.config).metadata_view is not None
    return run.config.metadata.fields if uses else ""


def configuration(run: Run) -> Part:
    """Return the config: differences from the defaults, and the full text."""
    changed = []
    for line in differences(configs.default_config(), run.config):
        key, _, values = line.partition(": ")
        changed.append((key, *values.split(" -> ", 1)))
    return Part("Configuration", "configuration", (changed, to_json(run.config)))


def _steps_done(history: Sequence[dict[str, Any]]) -> int:
    """Return the number of training steps; rows are numbered by steps done."""
    return max((int(row["step"]) for row in history if is_number(row.get("loss"))), default=0)


def _rates(history: Sequence[dict[str, Any]]) -> list[tuple[int, float]]:
    """Return (steps done, images per second since the previous row) of the rows with a rate."""
    return [
        (int(row["step"]), row["images_per_second"])
        for row in history
        if is_number(row.get("images_per_second")) and row["images_per_second"] > 0
    ]


def _seconds(rates: Sequence[tuple[int, float]], batch: int) -> float:
    """Return the time in steps, each at the rate of its row."""
    starts = [0, *(done for done, _ in rates)]
    return sum(
        max(done - start, 0) * batch / rate
        for start, (done, rate) in zip(starts, rates, strict=False)
    )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def is_number(value: object) -> bool:
    """Whether a value of a log is a finite number of reasonable size."""
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and abs(value) < 1e30  # false for NaN
    )
