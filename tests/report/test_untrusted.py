"""Untrusted folders: hostile names, and files with any content."""

import dataclasses
import json
import re
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from satmip_jax.evaluation.results import ResultsError, write_scores
from satmip_jax.metadata.schema import SchemaError
from satmip_jax.report.files import ReportError
from satmip_jax.report.page import write_report
from satmip_jax.report.run import facts, read_run
from tests.report.pages import HOSTILE, ROWS, Page, open_page, without_data


@pytest.fixture(scope="module")
def hostile_page(scored_run, tiny_shards_dir, tmp_path_factory) -> Page:
    """Report on a run and data with hostile names everywhere."""
    root = tmp_path_factory.mktemp("hostile")
    shards, run = root / "shards", root / "run <b onclick=alert(1)>"
    shutil.copytree(tiny_shards_dir, shards)
    schema = json.loads((shards / "schema.json").read_text())
    names = [*HOSTILE, *schema["classes"]][: len(schema["classes"])]
    (shards / "schema.json").write_text(json.dumps(schema | {"classes": names}))
    problems = {"gsd": {HOSTILE[0]: 3}}
    bad = [{"split": "train", "id": "x", "reason": HOSTILE[1]}] * 2
    report = {"splits": {HOSTILE[0]: 4}, "bad": bad, "skipped": [], "problems": problems}
    (shards / "prepare_report.json").write_text(json.dumps(report))
    shutil.copytree(scored_run, run)
    rows = [dataclasses.replace(ROWS[0], model=name, protocol=name) for name in HOSTILE]
    write_scores(run / "evaluation.json", rows)
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 3, f"{HOSTILE[0]}_loss": 1.0, "simclr_loss": "no"}) + "\n")
        file.write('{"step": 4, "loss": 1e999, "x_loss": NaN, "ll_accuracy": [1]}\n')
        file.write('{"step": 4, "loss"')  # truncated
    other = without_data(scored_run, root / "other")
    return open_page(write_report([run, run, other], root / "report.html", data=shards))


def test_hostile_names_stay_text(hostile_page):
    for name in HOSTILE[:2]:
        assert name not in hostile_page.source
        assert name in hostile_page.text
    tags = {tag for tag, _ in hostile_page.tags}
    assert tags <= {
        *("html", "head", "meta", "title", "style", "body", "div", "header", "nav", "main"),
        *("section", "footer", "h1", "h2", "h3", "h4", "p", "ul", "li", "dl", "dt", "dd", "a"),
        *("table", "caption", "thead", "tbody", "tr", "th", "td", "figure", "figcaption", "img"),
        *("b", "i", "small", "span", "code", "pre", "details", "summary"),
    }
    assert "49" not in re.findall(r"<h4>(.*?)</h4>", hostile_page.source)
    (policy,) = [a["content"] for _, a in hostile_page.tags if a.get("http-equiv")]
    assert policy.startswith("default-src 'none'; img-src data:;")


FILES = ("config.json", "evaluation.json", "metrics.jsonl", "schema.json", "environment.jsonl")


@settings(max_examples=60, deadline=None)
@given(
    file=st.sampled_from(FILES),
    text=st.binary(max_size=40)
    | st.sampled_from([b"[" * 100_000, b"{}", b"[]", b'{"step": {}}', b'{"data": {"dir": 5}}'])
    | st.sampled_from([b'{"step": 1, "devices": [], "versions": 3}', b'{"step": 1e99}']),
)
def test_any_file_is_read_or_refused(scored_run, tmp_path_factory, file, text):
    folder = tmp_path_factory.mktemp("any")
    for name in FILES:
        shutil.copy(scored_run / name, folder / name)
    (folder / file).write_bytes(text)
    refused = None
    try:
        assert facts(read_run(folder, "any"))
    except (ReportError, ResultsError, SchemaError) as error:
        refused = str(error)
    assert refused is None or file in refused


def test_files_that_are_too_large_are_refused(scored_run, tmp_path, monkeypatch):
    run = without_data(scored_run, tmp_path / "run")
    monkeypatch.setattr("satmip_jax.report.files.MAX_BYTES", 100)
    with pytest.raises(
        ReportError, match=r"config.json has [\d,]+ bytes, more than the limit of 100"
    ):
        write_report([run], tmp_path / "report.html")
