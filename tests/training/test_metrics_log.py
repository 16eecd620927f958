"""The log of a run: rows of metrics, TensorBoard events, a full disk."""

import logging

from satmip_jax.training.metrics_log import MetricsLog, read_rows
from tests.conftest import full_disk


def test_a_full_disk_costs_rows_but_not_the_run(tmp_path, caplog):
    caplog.set_level(logging.INFO, "satmip_jax")
    log = MetricsLog(tmp_path, start=0, total=40, batch_size=1)
    for step in range(10):
        log.write(step, {"loss": 1.0})
    with full_disk((tmp_path / "metrics.jsonl").stat().st_size + 5):  # rows are cut off in writing
        for step in range(10, 30):
            log.write(step, {"loss": 1.0})
    for step in range(30, 40):
        log.write(step, {"loss": 1.0})
    log.close()
    rows = [row["step"] for row in read_rows(tmp_path / "metrics.jsonl")]
    assert rows == [*range(10), *range(30, 40)]
    assert caplog.text.count("could not be written") == 1
    assert "written again, from step 30 on" in caplog.text
