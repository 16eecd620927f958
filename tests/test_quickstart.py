"""The quickstart with other methods than its own."""

import pytest

from satmip_jax.evaluation.results import read_scores
from satmip_jax.quickstart import quickstart
from tests.conftest import TINY


@pytest.mark.slow
def test_a_method_without_metadata_is_scored(tiny_shards_dir, tmp_path):
    quickstart(tmp_path, str(tiny_shards_dir), [*TINY, "--config.method.name=simclr"])
    rows = read_scores(tmp_path / "run" / "evaluation.json")
    assert {row.features for row in rows if row.model.startswith("simclr")} == {"image"}
