"""A run with scores, and its page."""

import shutil
from pathlib import Path

import pytest

from satmip_jax.evaluation.results import write_scores
from satmip_jax.report import embeddings
from satmip_jax.report.page import write_report
from satmip_jax.report.run import read_run
from tests.report.pages import ROWS, Page, open_page


@pytest.fixture(scope="package")
def scored_run(tiny_run, tmp_path_factory) -> Path:
    """Copy the tiny run, and write scores into its folder."""
    folder = tmp_path_factory.mktemp("scored") / "satmips"
    shutil.copytree(tiny_run, folder)
    write_scores(folder / "evaluation.json", ROWS)
    return folder


@pytest.fixture(scope="package")
def encoded(scored_run, tiny_shards_dir):
    """Encode a part of the examples with the tiny run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embeddings, "MAX_BANK", 50)
        patch.setattr(embeddings, "MAX_QUERIES", 17)
        return embeddings.encode(read_run(scored_run, "a"), str(tiny_shards_dir))


@pytest.fixture(scope="package")
def page(scored_run, tmp_path_factory) -> Page:
    """Report on the tiny run."""
    out = tmp_path_factory.mktemp("page") / "new" / "report.html"
    assert write_report([scored_run], out) == out
    return open_page(out)
