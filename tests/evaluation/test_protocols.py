"""A new protocol is one function and one line: the command, studies and reports take it."""

import io
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from rich.console import Console

from satmip_jax.cli import cli
from satmip_jax.evaluation.evaluate import evaluate_baseline
from satmip_jax.evaluation.protocols import PROTOCOLS, Protocol
from satmip_jax.evaluation.results import read_scores
from satmip_jax.report.scores import scores
from satmip_jax.studies import table
from tests.evaluation.test_knn import blobs, plain
from tests.studies.toy import BATCHES, row_of


def nearest_mean(bank, queries, labels, held_out, num_classes):
    """Classify by the nearest mean of a class."""
    means = [bank[labels == c].mean(axis=0) for c in range(num_classes) if (labels == c).any()]
    classes = np.unique(labels[labels >= 0])
    distances = np.square(queries[:, None] - np.stack(means)[None]).sum(axis=2)
    return classes[distances.argmin(axis=1)]


@pytest.fixture
def toy(monkeypatch):
    """The line in `PROTOCOLS`."""
    monkeypatch.setitem(PROTOCOLS, "mean", Protocol(nearest_mean))


@pytest.mark.usefixtures("toy")
def test_a_new_protocol_is_scored_by_the_command(tiny_run, tiny_shards_dir, tmp_path):
    run = CliRunner().invoke(
        cli,
        [
            *("evaluate", "--workdir", str(tmp_path), "--data", str(tiny_shards_dir)),
            *("--baseline", "colour", "--protocols", "knn5,mean"),
        ],
    )
    assert run.exit_code == 0, run.exception
    assert "mean" in run.output
    rows = read_scores(tmp_path / "evaluation.json")
    names = {"knn5", "mean", "knn5 blocked 1deg", "mean blocked 1deg"}
    assert {row.protocol for row in rows} == names
    assert all(row.low <= row.value <= row.high for row in rows)
    (page,) = [t for t in scores([("run", rows)]).tables if t.metric == "accuracy"]
    assert {name for name, _ in page.protocols} == names


@pytest.mark.usefixtures("toy")
def test_a_new_protocol_is_among_all(tiny_shards_dir):
    rows = evaluate_baseline("colour", tiny_shards_dir, block=0)
    expected = {"knn5", "knn20-weighted", "linear", "precision10", "mean"}
    assert {row.protocol for row in rows} == expected


@pytest.mark.parametrize("main", [True, False])
def test_a_study_shows_the_main_protocols(main, monkeypatch):
    monkeypatch.setitem(PROTOCOLS, "mean", Protocol(nearest_mean, main=main))
    study = replace(BATCHES, columns={})
    protocols = ("knn5", "mean", "mean blocked 1deg", "knn20-weighted")
    summaries = table.summarize(study, [row_of(protocol=name) for name in protocols])
    shown = [s.cells["protocol"] for s in table.main_scores(study, summaries)]
    assert shown == (["knn5", "mean", "mean blocked 1deg"] if main else ["knn5"])
    console = Console(file=io.StringIO(), width=200, record=True)
    table.print_summary(study, summaries, console)
    assert ("mean" in console.export_text()) == main


@pytest.mark.parametrize(
    ("name", "k", "temperature"), [("knn5", 5, None), ("knn20-weighted", 20, 0.07)]
)
def test_the_neighbours_that_vote_are_those_of_the_name(name, k, temperature):
    (bank, labels), (queries, _) = blobs(300), blobs(90, seed=1)
    got = PROTOCOLS[name].classify(bank, queries, labels.astype(np.int32), np.zeros(300, bool), 6)
    np.testing.assert_array_equal(got, plain(bank, labels, queries, k, 6, temperature))
