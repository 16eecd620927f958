"""A run folder, as `satmip train` and `satmip evaluate` left it: what it was, how it went."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from satmip_jax.config import defaults as configs
from satmip_jax.config.conversion import differences, from_json, to_json
from satmip_jax.errors import ConfigError
from satmip_jax.evaluation.results import Score, read_scores
from satmip_jax.metadata.schema import Schema
from satmip_jax.objectives import build_method, method_title
from satmip_jax.report.figures import Line, Picture, curves
from satmip_jax.report.files import ReportError, read_text
from satmip_jax.report.hardware import history as machines
from satmip_jax.report.section import Part
from satmip_jax.training.metrics_log import METRICS_FILE, STARTS_FILE
from satmip_jax.training.metrics_log import read_rows as read_log
from satmip_jax.training.optimizer import total_steps

CONFIG_FILE = "config.json"
FOUND, TOLD = "partner found in the batch", "told right in training"  # what accuracies count
MAX_LINES = 40  # curves of one drawing


@dataclass(frozen=True)
class Run:
    """What a run folder holds.

    Attributes:
        name: of the folder, as far as it tells it from the others on the page.
        schema: of the data trained on; None where the run ended before it was written.
        history: rows of metrics.jsonl, in order.
        starts: rows of environment.jsonl: what computed, from which step on.
        scores: rows of evaluation.json.
    """

    name: str
    folder: Path
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


def read_run(folder: Path, name: str) -> Run:
    """Read a run folder; what it does not hold yet is empty.

    Raises:
        ReportError: its config or its metrics cannot be read; names the file.
        ResultsError, SchemaError: the same of its scores and its schema.
    """
    path = folder / CONFIG_FILE
    try:
        config = from_json(read_text(path))
        build_method(config)  # a known method with valid options
    except (ConfigError, RecursionError) as error:
        raise ReportError(f"{path}: {error}") from None
    schema, scores = folder / "schema.json", folder / "evaluation.json"
    if scores.is_file():
        read_text(scores)  # not too large
    return Run(
        name,
        folder,
        config,
        Schema.load(schema) if schema.is_file() else None,
        _read_log(folder / METRICS_FILE),
        _read_log(folder / STARTS_FILE),
        read_scores(scores) if scores.is_file() else [],
    )


def _read_log(path: Path) -> list[dict[str, Any]]:
    """The rows of a log that name a step; none where there is no file."""
    if not path.is_file():
        return []
    read_text(path)  # not too large
    return [row for row in read_log(path) if _is_number(row["step"])]


# --- what it was ----------------------------------------------------------------------------------


def facts(run: Run) -> list[tuple[str, str]]:
    """The title line: names and values, of what config and metrics say."""
    config = run.config
    batch = config.optimizer.batch_size
    rows = [("image encoder", f"{config.image.encoder}, {config.image.size} px, {config.dtype}")]
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
        steps = f"{done:,} steps of {batch:,}, global"
        rows.append(("images seen", f"{done * batch:,}{planned} ({steps})"))
    if rates := _rates(run.history):
        seconds = _seconds(rates, batch)
        rows.append(("time in steps", f"{_clock(seconds)}, evaluation not included"))
        rate = statistics.median(rate for _, rate in rates)
        rows.append(("throughput", f"{rate:,.0f} images/s (median)"))
    if negatives:
        counts = ", ".join(f"{method_title(name)} {n:,}" for name, n in negatives.items())
        rows.append(("negatives per anchor", counts))
    rows.append(("seed", str(config.seed)))
    return rows + machines(run.starts)


def fields_used(run: Run) -> str:
    """The selection of metadata fields that the run's method takes in or predicts; "" if none."""
    uses = build_method(run.config).metadata_view is not None
    return run.config.metadata.fields if uses else ""


def configuration(run: Run) -> Part:
    """What differs from the defaults, and all of it."""
    changed = []
    for line in differences(configs.default_config(), run.config):
        key, _, values = line.partition(": ")
        changed.append((key, *values.split(" -> ", 1)))
    return Part("Configuration", "configuration", (changed, to_json(run.config)))


# --- how it went ----------------------------------------------------------------------------------


def training(run: Run) -> Part | None:
    """Curves of losses, accuracies, learning rate and scores during training."""
    pictures = []
    for keys, y, alt, percent in _drawings(run.history, run.contrastive):
        lines = [Line(_label(key), points) for key in keys if (points := _points(run, key))]
        if not lines:
            continue
        pictures.append(curves(lines, y=y, alt=f"{alt} of {run.name}", percent=percent))
    return Part("Training", "pictures", pictures) if pictures else None


def compared_training(runs: Sequence[Run]) -> list[Picture]:
    """A drawing for each loss and score during training that several runs have, a line a run."""
    contrastive = frozenset(name for run in runs for name in run.contrastive)
    keys = dict.fromkeys(
        key
        for run in runs
        for names, y, _, _ in _drawings(run.history, contrastive)
        for key in names
        if y != "learning rate" and key != "loss"  # sums of different losses do not compare
    )
    pictures = []
    for key in list(keys)[:MAX_LINES]:
        lines = [Line(run.name, points) for run in runs if (points := _points(run, key))]
        if len(lines) < 2:
            continue
        picture = curves(
            lines[:MAX_LINES],
            y=_plain(key, contrastive),
            alt=f"{_label(key)} of the runs over the images seen",
            percent=not key.endswith("loss"),
        )
        pictures.append(replace(picture, caption=f"{_label(key)}: {_plain(key, contrastive)}"))
    return pictures


def _drawings(
    history: Sequence[dict[str, Any]], contrastive: AbstractSet[str]
) -> list[tuple[list[str], str, str, bool]]:
    """(keys, label of the axis, what it shows, fractions as percent) of each drawing."""
    keys = sorted({key for row in history for key in row})
    losses = [key for key in keys if key.endswith("_loss")]
    if "loss" in keys and len(losses) != 1:  # the sum of one loss is that loss
        losses.append("loss")
    right = [key for key in keys if key.endswith("_accuracy") and not key.startswith("knn_")]
    found = [key for key in right if key.removesuffix("_accuracy") in contrastive]
    told = [key for key in right if key not in found]
    knn = [key for key in keys if key.startswith("knn_")]
    drawings = [
        (losses, "loss", "losses", False),
        (found, FOUND, "share of partners found", True),
        (told, TOLD, "share of predictions that are right", True),
        (knn, "kNN accuracy", "kNN accuracy during training", True),
        ([key for key in keys if key == "learning_rate"], "learning rate", "learning rate", False),
    ]
    return [(names[:MAX_LINES], *rest) for names, *rest in drawings if names]  # type: ignore[misc]


def _plain(key: str, contrastive: AbstractSet[str]) -> str:
    """What a key of metrics counts, in words of ours: a drawing takes none of a stranger's."""
    if key.endswith("loss"):
        return "loss"
    if key.startswith("knn_"):
        return "kNN accuracy"
    return FOUND if key.removesuffix("_accuracy") in contrastive else TOLD


def _label(key: str) -> str:
    words = key.removesuffix("_loss").removesuffix("_accuracy")
    if key.startswith("knn_"):
        return f"features: {key.removeprefix('knn_')}"
    return "sum" if key == "loss" else method_title(words).replace("_", " ")


def _points(run: Run, key: str) -> list[tuple[float, float]]:
    """(images seen, value) of one key, where it is a number."""
    # a row of a step is logged under its number, from 0; scores after it under the number of steps
    after = 0 if key.startswith("knn_") else 1
    batch = run.config.optimizer.batch_size
    return [
        ((row["step"] + after) * batch, row[key]) for row in run.history if _is_number(row.get(key))
    ]


def _steps_done(history: Sequence[dict[str, Any]]) -> int:
    """How many training steps the rows tell of; a step is logged under its number, from 0."""
    return max((int(row["step"]) + 1 for row in history if _is_number(row.get("loss"))), default=0)


def _rates(history: Sequence[dict[str, Any]]) -> list[tuple[int, float]]:
    """(steps done, images per second up to there) of the rows that have a rate."""
    return [
        (int(row["step"]) + 1, row["images_per_second"])
        for row in history
        if _is_number(row.get("images_per_second")) and row["images_per_second"] > 0
    ]


def _seconds(rates: Sequence[tuple[int, float]], batch: int) -> float:
    """Time in steps, each at the rate of its row."""
    starts = [0, *(done for done, _ in rates)]
    return sum(
        max(done - start, 0) * batch / rate
        for start, (done, rate) in zip(starts, rates, strict=False)
    )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def _is_number(value: object) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and abs(value) < 1e30  # also not NaN
    )
