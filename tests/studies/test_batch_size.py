"""The study of batch sizes."""

import pytest

from satmip_jax.studies.runner import run_study
from tests.studies.toy import rows_of


@pytest.mark.slow
@pytest.mark.usefixtures("one_device")
def test_batch_sizes_are_compared_for_equal_images_seen(tiny_config, tmp_path, quiet):
    config = tiny_config("satmip", "--config.optimizer.learning_rate=0.01")
    options = {"batch_sizes": "8,16,128", "learning_rate_rule": "sqrt"}
    run_study("batch-size", config, tmp_path, options=options, console=quiet)
    rows = [row for row in rows_of(tmp_path) if row["metric"] == "accuracy"]
    assert {row["images"] for row in rows} == {"64"}
    columns = {row["batch_size"]: (row["learning_rate"], row["exchange"]) for row in rows}
    assert columns.keys() == {"8", "16"}
    assert float(columns["8"][0]) == pytest.approx(0.01 / 2**0.5)
    assert columns["16"] == ("0.01", "gather")
    assert all(float(row["compiled_gib"]) > 0 for row in rows)
    assert "the train split has 64 images" in quiet.export_text()
    assert (tmp_path / "plot.png").stat().st_size > 10_000
