"""The page of `satmip report`: its parts, and notes on what is missing."""

import dataclasses
import json
import re
from pathlib import Path

import pytest

from satmip_jax.data.shard_format import ShardError
from satmip_jax.evaluation.results import write_scores
from satmip_jax.report.files import ReportError
from satmip_jax.report.page import short_names, write_report
from satmip_jax.training.loop import train
from tests.report.pages import ROWS, open_page, without_data


def test_page_holds_the_scores_with_their_intervals(page):
    for text in ("43.8", "25.0–62.5", "31.2", "58.3", "knn5 blocked 1deg", "colour", "linear"):
        assert text in page.text, text
    assert "<b>43.8</b>" in page.source  # the better of the two
    assert "<b>31.2</b>" not in page.source
    assert "<b>58.3</b>" not in page.source  # a single line


def test_page_holds_all_its_parts(page):
    contents = page.text.split("image encoder")[0]
    for title in (
        *("Scores", "Training", "Classes", "Nearest neighbours", "Image-metadata retrieval"),
        *("Feature space", "Geography", "Data", "Configuration"),
    ):
        assert title in contents
        assert f">{title}</h3>" in page.source
    assert "64 (4 steps of 16)" in page.text
    assert "optimizer.batch_size" in page.text
    assert page.source.count("data:image/jpeg") >= 8 * 7  # queries and their neighbours


def test_page_without_data_notes_why(scored_run, tmp_path):
    run = without_data(scored_run, tmp_path / "run")
    page = open_page(write_report([run], tmp_path / "report.html"))
    assert "43.8" in page.text
    assert f"no prepared data in {run / 'gone'}" in page.text
    assert "give their folder as --data" in page.text
    assert "Nearest neighbours" not in page.text
    assert "Data" in page.text  # the fields, from the run's schema


def test_explicit_data_must_exist(scored_run, tmp_path):
    with pytest.raises(ShardError, match="no prepared data"):
        write_report([scored_run], tmp_path / "report.html", data=tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_page_without_checkpoints_and_of_a_run_that_just_started(
    scored_run, tiny_shards_dir, tmp_path
):
    run = without_data(scored_run, tmp_path / "run")
    page = open_page(write_report([run], tmp_path / "a.html", data=tiny_shards_dir))
    assert "has no checkpoints" in page.text
    for name in ("metrics.jsonl", "evaluation.json", "schema.json"):
        (run / name).unlink()
    page = open_page(write_report([run], tmp_path / "b.html"))
    assert "satmip evaluate" in page.text


def test_remote_data_are_read_only_on_request(scored_run, tmp_path):
    run = without_data(scored_run, tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    config["data"]["dir"] = "gs://untrusted/bucket"
    (run / "config.json").write_text(json.dumps(config))
    page = open_page(write_report([run], tmp_path / "report.html"))
    assert "read only with --data" in page.text


def test_method_without_metadata_with_moved_data(tiny_config, tiny_shards_dir, tmp_path):
    run = tmp_path / "simclr"
    train(tiny_config("simclr", "--config.optimizer.images=16"), run)
    gone = json.loads((run / "config.json").read_text())
    gone["data"]["dir"] = str(tmp_path / "gone")
    (run / "config.json").write_text(json.dumps(gone))
    page = open_page(write_report([run], tmp_path / "report.html", data=tiny_shards_dir))
    assert "Nearest neighbours" in page.text
    assert "Image-metadata retrieval" not in page.text
    assert "negatives per anchor SimCLR 30" in page.text
    used = re.findall(r"<td>(yes|no)</td>", page.source)
    assert used == ["no"] * 15  # of the metadata fields


def test_folder_that_is_neither_run_nor_study_is_refused(tmp_path):
    with pytest.raises(ReportError, match=r"neither config.json .* nor study.json"):
        write_report([tmp_path], tmp_path / "report.html")
    with pytest.raises(ReportError, match="nothing to report on"):
        write_report([], tmp_path / "report.html")


def test_runs_are_compared(scored_run, tmp_path):
    one = without_data(scored_run, tmp_path / "a" / "run")
    other = without_data(scored_run, tmp_path / "b" / "run")
    better = dataclasses.replace(ROWS[0], value=0.875, low=0.7, high=0.95)
    write_scores(other / "evaluation.json", [better])
    page = open_page(write_report([one, other, one], tmp_path / "report.html"))
    sections = re.findall(r"<h2>(.*?)</h2>", page.source)
    assert sections[0] == "2 runs compared"
    assert [name.split(":")[0] for name in sections[1:]] == ["a/run", "b/run"]
    first = page.source.split("<h2>")[1]
    table = first.split("<tbody>")[1].split("</tbody>")[0]
    knn5 = [row.split("</td>")[2] for row in table.split("<tr")[1:]]
    shown = [re.search(r"\d+\.\d", cell)[0] for cell in knn5]
    assert shown == ["43.8", "31.2", "87.5", "31.2"]  # image features of both runs
    assert [shown[i] for i, cell in enumerate(knn5) if "<b>" in cell] == ["87.5"]
    legend = re.findall(r"</i>(.*?)</li>", first)
    assert {"a/run", "b/run"} <= set(legend)


def test_short_names_are_unique():
    paths = [Path("/r/spatial/simclr"), Path("/r/random/simclr"), Path("/r/x/satmip")]
    assert short_names(paths) == ["spatial/simclr", "random/simclr", "x/satmip"]
    assert short_names(paths[1:]) == ["simclr", "satmip"]
