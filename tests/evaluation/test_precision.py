"""Precision at 10 against a naive loop, with and without the query itself in the bank."""

import io
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from rich.console import Console

from satmip_jax.cli import cli
from satmip_jax.data.shard_dataset import ShardDataset
from satmip_jax.evaluation.baselines import BASELINES, extract_baseline
from satmip_jax.evaluation.evaluate import evaluate_baseline
from satmip_jax.evaluation.metrics import mean_interval
from satmip_jax.evaluation.precision import precisions, retrieve_classes
from satmip_jax.evaluation.protocols import EvaluationError
from satmip_jax.evaluation.results import ResultsError, Score, print_scores, read_scores


def naive(bank, queries, labels, truth, k, itself=False):
    """The precision of each query, one cosine at a time."""
    found = []
    for i, query in enumerate(queries):
        cosines = [
            (-np.dot(row, query) / np.linalg.norm(row) / np.linalg.norm(query), j)
            for j, row in enumerate(bank)
            if labels[j] >= 0 and not (itself and i == j)
        ]
        nearest = [labels[j] for _, j in sorted(cosines)[:k]]
        found.append(sum(label == truth[i] for label in nearest) / len(nearest))
    return np.array(found)


@pytest.mark.parametrize("itself", [False, True])
def test_precision_equals_a_loop(itself):
    rng = np.random.default_rng(0)
    bank = rng.normal(size=(80, 5)).astype(np.float32)
    labels = rng.integers(-1, 4, 80).astype(np.int32)
    queries, truth = (bank, labels) if itself else (bank[:30] + 0.1, labels[:30])
    for k in (1, 10):
        own = np.arange(80) if itself else None
        got = precisions(truth, retrieve_classes(bank, queries, labels, own, k=k))
        np.testing.assert_allclose(got, naive(bank, queries, labels, truth, k, itself))


def test_banks_that_are_too_small_count_what_they_have():
    labels = np.array([0, 1, -1], np.int32)
    bank = np.eye(3, dtype=np.float32)
    retrieved = retrieve_classes(bank, bank, labels, k=10)
    assert precisions(np.array([0, 1, 1]), retrieved).tolist() == [0.5] * 3
    retrieved = retrieve_classes(bank, bank, labels, np.arange(3), k=10)
    assert precisions(np.array([0, 1, 1]), retrieved).tolist()[:2] == [0, 0]
    only = retrieve_classes(bank[:1], bank[:1], labels[:1], np.arange(1), k=10)
    assert precisions(labels[:1], only).tolist() == [0]


def test_intervals_are_those_of_drawn_examples():
    rng = np.random.default_rng(1)
    values = rng.integers(0, 11, 400) / 10
    drawn = values[rng.integers(0, 400, (4000, 400))].mean(axis=1)
    np.testing.assert_allclose(
        mean_interval(values), np.quantile(drawn, [0.025, 0.975]), atol=0.006
    )


def test_the_protocol_is_scored_by_class(tiny_shards_dir):
    (row,) = evaluate_baseline("colour", tiny_shards_dir, protocols=["precision10"], block=0)
    bank, queries = (
        extract_baseline(BASELINES["colour"], ShardDataset(tiny_shards_dir, split))
        for split in ("train", "val")
    )
    x, q = (part.by_kind["image"].astype(np.float64) for part in (bank, queries))
    mean, deviation = x.mean(axis=0), x.std(axis=0)
    each = naive((x - mean) / deviation, (q - mean) / deviation, bank.labels, queries.labels, 10)
    assert (row.metric, row.n) == ("precision", 24)
    np.testing.assert_allclose(row.value, each.mean(), atol=1e-6)
    classes = ShardDataset(tiny_shards_dir, "val").schema.classes
    expected = {
        classes[label]: each[queries.labels == label].mean() for label in np.unique(queries.labels)
    }
    assert dict(row.by_class) == pytest.approx(expected)
    often = np.bincount(bank.labels).argmax()
    assert row.majority == pytest.approx((queries.labels == often).mean())


def test_a_split_retrieves_within_itself(tiny_shards_dir):
    options = {"protocols": ["precision10"], "bank": "val", "block": 0}
    (row,) = evaluate_baseline("colour", tiny_shards_dir, **options)
    part = extract_baseline(BASELINES["colour"], ShardDataset(tiny_shards_dir, "val"))
    x = part.by_kind["image"].astype(np.float64)
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    each = naive(x, x, part.labels, part.labels, 10, itself=True)
    np.testing.assert_allclose(row.value, each.mean(), atol=1e-6)
    assert row.protocol == "precision10 (bank val)"
    with pytest.raises(EvaluationError, match="same for protocols that retrieve"):
        evaluate_baseline("colour", tiny_shards_dir, protocols=["knn5"], bank="val", block=0)


def test_the_command_prints_and_keeps_the_classes(tiny_shards_dir, tmp_path):
    arguments = ["--workdir", str(tmp_path), "--data", str(tiny_shards_dir)]
    run = CliRunner().invoke(
        cli,
        ["evaluate", *arguments, "--baseline", "colour", "--protocols", "knn5,precision10"],
    )
    assert run.exit_code == 0, run.exception
    assert "precision10 blocked 1deg: precision by class, %" in run.output
    rows = [row for row in read_scores(tmp_path / "evaluation.json") if row.by_class]
    assert {row.protocol for row in rows} == {"precision10", "precision10 blocked 1deg"}
    screen = Console(file=io.StringIO(), width=200)
    print_scores([replace(rows[0], by_class=(("[red]a", 0.5), ("b", 1.0)))], screen)
    assert "[red]a" in screen.file.getvalue()


@pytest.mark.usefixtures("no_type_checks")
@pytest.mark.parametrize("bad", [3, [["a", 1.0]], (("a", 2.0),), (("a",),), (("a", "b"),)])
def test_classes_are_checked(bad):
    score = Score("d", "val", "m", "image", "precision10", "precision", 0.5, 4)
    with pytest.raises(ResultsError, match="by_class"):
        replace(score, by_class=bad)
