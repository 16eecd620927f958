"""The quickstart on given data: with its own method, and with one that has no metadata encoder."""

import pytest
from click.testing import CliRunner

from satmip_jax.cli import cli
from satmip_jax.evaluation.results import read_scores
from tests.conftest import TINY


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
