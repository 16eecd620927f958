"""Training time, read from the log."""

import json

import pytest

from satmip_jax.studies.training_time import training_seconds


def test_training_time_is_without_compilation_and_evaluation(tmp_path):
    """Every step takes half a second; the first one after a start has no rate."""
    rows = [
        {"step": 1, "loss": 1.0},  # the first step alone
        {"step": 4, "loss": 1.0, "images_per_second": 16 / 0.5},
        {"step": 4, "knn_image": 0.3},
        {"step": 8, "loss": 1.0, "images_per_second": 16 / 0.5},
    ]
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert training_seconds(path, 16) == pytest.approx(8 * 0.5)
    path.write_text(json.dumps(rows[0]) + "\n")
    assert training_seconds(path, 16) is None
