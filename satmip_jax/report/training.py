"""Curves of training: losses, accuracies, learning rate and kNN scores over the images seen."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import Any

from satmip_jax.objectives import method_title
from satmip_jax.report.figures import Line, Picture, curves
from satmip_jax.report.run import Run, is_number
from satmip_jax.report.section import Part

# The two kinds of accuracy that training logs.
RETRIEVAL, PREDICTION = "in-batch retrieval accuracy", "training accuracy"
MAX_LINES = 40  # curves per figure


def training(run: Run) -> Part | None:
    """Draw the losses, accuracies, kNN scores and learning rate of a run; None without metrics."""
    pictures = []
    for keys, y, alt, percent in _figures(run.history, run.contrastive):
        lines = [Line(_label(key), points) for key in keys if (points := _points(run, key))]
        if not lines:
            continue
        pictures.append(curves(lines, y=y, alt=f"{alt} of {run.name}", percent=percent))
    return Part("Training", "pictures", pictures) if pictures else None


def compared_training(runs: Sequence[Run]) -> list[Picture]:
    """Draw each loss and score that several runs logged, with a curve per run."""
    contrastive = frozenset(name for run in runs for name in run.contrastive)
    keys = dict.fromkeys(
        key
        for run in runs
        for names, y, _, _ in _figures(run.history, contrastive)
        for key in names
        if y != "learning rate" and key != "loss"  # sums of different losses are not comparable
    )
    pictures = []
    for key in list(keys)[:MAX_LINES]:
        lines = [Line(run.name, points) for run in runs if (points := _points(run, key))]
        if len(lines) < 2:
            continue
        picture = curves(
            lines[:MAX_LINES],
            y=_quantity(key, contrastive),
            alt=f"{_label(key)} of the runs over the images seen",
            percent=not key.endswith("loss"),
        )
        pictures.append(replace(picture, caption=f"{_label(key)}: {_quantity(key, contrastive)}"))
    return pictures


def _figures(
    history: Sequence[dict[str, Any]], contrastive: AbstractSet[str]
) -> list[tuple[list[str], str, str, bool]]:
    """Return (keys, label of the y axis, text alternative, show percentages) of each figure."""
    keys = sorted({key for row in history for key in row})
    losses = [key for key in keys if key.endswith("_loss")]
    if "loss" in keys and len(losses) != 1:  # a single loss is its own sum
        losses.append("loss")
    accuracies = [key for key in keys if key.endswith("_accuracy") and not key.startswith("knn_")]
    retrieval = [key for key in accuracies if key.removesuffix("_accuracy") in contrastive]
    predictions = [key for key in accuracies if key not in retrieval]
    knn = [key for key in keys if key.startswith("knn_")]
    figures = [
        (losses, "loss", "losses", False),
        (retrieval, RETRIEVAL, "in-batch retrieval accuracy", True),
        (predictions, PREDICTION, "training accuracy", True),
        (knn, "kNN accuracy", "kNN accuracy during training", True),
        ([key for key in keys if key == "learning_rate"], "learning rate", "learning rate", False),
    ]
    return [(names[:MAX_LINES], *rest) for names, *rest in figures if names]  # type: ignore[misc]


def _quantity(key: str, contrastive: AbstractSet[str]) -> str:
    """Return the quantity behind a key of metrics as a fixed text, safe inside a figure."""
    if key.endswith("loss"):
        return "loss"
    if key.startswith("knn_"):
        return "kNN accuracy"
    return RETRIEVAL if key.removesuffix("_accuracy") in contrastive else PREDICTION


def _label(key: str) -> str:
    words = key.removesuffix("_loss").removesuffix("_accuracy")
    if key.startswith("knn_"):
        return f"features: {key.removeprefix('knn_')}"
    return "sum" if key == "loss" else method_title(words).replace("_", " ")


def _points(run: Run, key: str) -> list[tuple[float, float]]:
    """Return (images seen, value) of the rows where a key is a number."""
    batch = run.config.optimizer.batch_size
    return [(row["step"] * batch, row[key]) for row in run.history if is_number(row.get(key))]
