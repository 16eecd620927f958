"""A field that is added later: one entry in `FIELDS`, and one class if its kind is new."""

import json
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY


@pytest.mark.slow
def test_a_sixteenth_field_of_a_new_kind(tiny_shards_dir, tiny_run, tmp_path):
    """Data and checkpoints of fifteen fields give the same scores; the new field is learned."""
    from satmip_jax.evaluation.evaluate import evaluate

    command = [sys.executable, "-m", "tests.metadata.sixteenth"]
    result = subprocess.run(
        [*command, str(tiny_shards_dir), str(tiny_run), str(tmp_path)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-5000:]
    scores = evaluate(tiny_run, str(tiny_shards_dir), protocols=["knn5"])
    values = [score.value for score in scores]
    assert json.loads((tmp_path / "scores.json").read_text()) == values
