"""The quickstart on given data: with its own method, and with one that has no metadata encoder."""

import pytest
from click.testing import CliRunner

from satmip_jax.cli import cli
from satmip_jax.evaluation.results import Score, read_scores
from satmip_jax.quickstart import add_ceiling
from tests.conftest import TINY

METRICS = ("accuracy", "macro_f1", "worst_class", "worst_region")


def test_the_ceiling_of_metadata_is_one_of_accuracy():
    kinds = [(features, metric) for features in ("image", "both (Time)") for metric in METRICS]
    rows = [Score("synthetic", "val", "m", kind[0], "knn5", kind[1], 0.5, 9) for kind in kinds]
    noted = [(row.features, row.metric) for row in add_ceiling(rows) if row.note]
    assert noted == [("both (Time)", "accuracy")]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["satmips", "simclr"])
def test_it_ends_with_scores_and_a_page(method, tiny_shards_dir, tmp_path):
    options = ["--data", str(tiny_shards_dir), "--out", str(tmp_path)]
    config = [*TINY, f"--config.method.name={method}", "--config.image.size=32"]
    result = CliRunner().invoke(cli, ["quickstart", *options, *config], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "<html" in (tmp_path / "page" / "index.html").read_text()
    rows = read_scores(tmp_path / "run" / "evaluation.json")
    kinds = {row.features for row in rows if row.model.startswith(f"{method} ")}
    described = {"metadata", "both", "metadata (all-leak)", "both (all-leak)"}
    assert kinds == {"image"} | (described if method == "satmips" else set())
