"""The data of a run in a report."""

import json

from satmip_jax.prepare.report import REPORT_FILE
from satmip_jax.report.data import data_report
from tests.metadata.records import SCHEMA


def test_contradictions_found_by_the_preparation_are_shown(tmp_path):
    findings = ["country against location: 3 of 5 records disagree", 7, "x" * 10_000]
    written = {"splits": {"train": 5}, "findings": findings}
    (tmp_path / REPORT_FILE).write_text(json.dumps(written))
    summary = data_report(SCHEMA, "all", "train", tmp_path).summary
    assert summary[0] == "Stored: 5 train."
    assert summary[2] == "country against location: 3 of 5 records disagree."
    assert len(summary) == 4
    assert len(summary[3]) < 500
    (tmp_path / REPORT_FILE).write_text(json.dumps({"findings": {"a": 1}}))
    assert len(data_report(SCHEMA, "all", "train", tmp_path).summary) == 2
