"""Training time of a run, from its log."""

from __future__ import annotations

from satmip_jax.runtime.paths import AnyPath
from satmip_jax.training.metrics_log import read_rows


def training_seconds(metrics: AnyPath, batch_size: int) -> float | None:
    """Return the time a run spent in training steps, without compilation and evaluation.

    The logged rates leave out the first step after each start, which is mostly compilation. Such a
    step counts here with the mean length of the others.

    Args:
        metrics: a `metrics.jsonl`.
        batch_size: global batch size of the run.

    Returns:
        Seconds, or None if no step was measured.
    """
    measured, seconds, previous = 0, 0.0, 0
    for row in read_rows(metrics):
        if "loss" not in row:  # an evaluation
            continue
        steps, previous = int(row["step"]) - previous, int(row["step"])
        if rate := row.get("images_per_second"):
            measured += steps
            seconds += steps * batch_size / rate
    return seconds * previous / measured if measured else None
