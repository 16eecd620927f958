"""A study whose folder is in a bucket."""

import os

import pytest

from satmip_jax.report.page import write_report
from satmip_jax.runtime import stores
from satmip_jax.runtime.paths import as_path
from satmip_jax.studies import scoring
from satmip_jax.studies.runner import run_study
from tests.studies.toy import count_calls, rows_of


@pytest.mark.slow
@pytest.mark.usefixtures("compiled_once", "one_device")
def test_a_study_in_a_bucket_has_the_table_of_a_local_one(
    tiny_config, bucket, tmp_path, monkeypatch, quiet
):
    config, out = tiny_config("simclr"), as_path(bucket) / "study"
    run_study("batches", config, tmp_path / "local", console=quiet)

    def stop(call):
        if call == 2:  # 1: untrained encoder, 2: trained run
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        count_calls(patch, scoring, "evaluate", stop)
        with pytest.raises(KeyboardInterrupt):
            run_study("batches", config, out, console=quiet)
    scored = count_calls(monkeypatch, scoring, "evaluate")
    run_study("batches", config, out, console=quiet)
    assert len(scored) == 1

    (tmp_path / "remote").mkdir()
    (tmp_path / "remote" / "results.csv").write_bytes(stores.get(out / "results.csv"))
    assert rows_of(tmp_path / "remote") == rows_of(tmp_path / "local")
    names = {"study.json", "results.csv", "results.parquet", "plot.svg", "plot.png", "runs"}
    assert set(stores.names_in(out)) == names

    page = write_report([out, out / "runs" / "b8-seed0"], as_path(bucket) / "report.html")
    assert os.fspath(page) == f"{bucket}/report.html"
    assert b"Batches" in stores.get(page)
