"""How long a training took, from its log."""

from __future__ import annotations

from pathlib import Path

from satmip_jax.training.metrics_log import read_rows


def training_seconds(metrics: Path, batch_size: int) -> float | None:
    """How long the steps of a run took, without compilation and evaluation.

    The log leaves the first step after each start out of its rates, as most of it is compilation;
    such a step counts here as one of the mean length of the others.

    Args:
      metrics: a `metrics.jsonl`.
      batch_size: global, of the run.

    Returns:
      Seconds, or None where no step was measured.
    """
    measured, seconds, previous = 0, 0.0, -1
    for row in read_rows(metrics):
        if "loss" not in row:  # of an evaluation
            continue
        steps, previous = int(row["step"]) - previous, int(row["step"])
        if rate := row.get("images_per_second"):
            measured += steps
            seconds += steps * batch_size / rate
    return seconds * (previous + 1) / measured if measured else None
