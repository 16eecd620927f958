"""The worst class and region beside the mean: against plain Python, and in the command."""

from collections import defaultdict
from dataclasses import replace

import numpy as np
import pycountry
import pytest
from click.testing import CliRunner

from satmip_jax.cli import cli
from satmip_jax.data.shard_dataset import ShardDataset
from satmip_jax.evaluation import evaluate as evaluation
from satmip_jax.evaluation import worst_group as module
from satmip_jax.evaluation.evaluate import evaluate_baseline
from satmip_jax.evaluation.results import Score, read_scores
from satmip_jax.evaluation.worst_group import (
    MIN_EXAMPLES,
    group_by_region,
    score_worst_groups,
    worst_group,
)
from satmip_jax.metadata.countries import country_code
from satmip_jax.metadata.regions import region, sub_region

ROW = Score("data", "val", "model", "image", "knn5", "", 0.0, 4)


def test_every_country_has_a_region_but_antarctica():
    codes = {country.alpha_3 for country in pycountry.countries} | {"XKX"}
    assert {code for code in codes if not region(code)} == {"ATA"}
    assert {region(code) for code in codes - {"ATA"}} == {
        *("Africa", "Americas", "Asia", "Europe", "Oceania")
    }
    assert len({sub_region(code) for code in codes - {"ATA"}}) == 17
    assert all(country_code(code) for code in codes)
    # the odd ones of M49
    assert [region(code) for code in ("CYP", "TUR", "RUS", "EGY", "MEX")] == [
        *("Asia", "Asia", "Europe", "Africa", "Americas")
    ]
    assert region("") == sub_region("ZZZ") == ""


def test_the_worst_group_is_plain_pythons():
    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(3, size=(2, 500))
    groups = rng.choice(["Asia", "Africa", "", "Oceania"], p=[0.5, 0.4, 0.08, 0.02], size=500)
    worst = worst_group(truth, predicted, groups)
    hits = defaultdict(list)
    for name, right in zip(groups.tolist(), (truth == predicted).tolist(), strict=True):
        hits[name].append(right)
    assert len(hits["Oceania"]) < MIN_EXAMPLES
    expected = {name: np.mean(hits[name]) for name in ("Africa", "Asia")}
    assert dict(worst.by_group) == pytest.approx(expected)
    name = min(expected, key=expected.get)
    assert (worst.value, worst.n) == (pytest.approx(expected[name]), len(hits[name]))
    # the normal approximation of a fraction's interval
    half = 1.96 * np.sqrt(worst.value * (1 - worst.value) / worst.n)
    assert [worst.low, worst.high] == pytest.approx(
        [worst.value - half, worst.value + half], abs=0.02
    )


def test_one_group_is_no_comparison():
    truth = np.zeros(40, int)
    assert worst_group(truth, truth, ["Asia"] * 39 + ["Africa"]) is None
    assert score_worst_groups(ROW, truth, truth, {"class": np.full(40, "River")}) == []


@pytest.mark.parametrize(
    ("countries", "level"),
    [
        (["FRA", "PER"], "region"),
        (["FRA", "ITA"], "sub_region"),
        (["FRA", "DEU"], "country"),
        (["FRA", ""], None),
    ],
)
def test_regions_are_as_large_as_the_data_allow(countries, level):
    few = ["JPN"] * (MIN_EXAMPLES - 1)
    found = group_by_region(np.repeat(countries, MIN_EXAMPLES).tolist() + few)
    assert list(found) == ([] if level is None else [level])
    for groups in found.values():
        assert len(groups) == 2 * MIN_EXAMPLES + len(few)
        assert len(set(groups)) == 3


def test_countries_are_read_whether_the_train_split_has_them_or_not(tiny_shards_dir):
    dataset = ShardDataset(tiny_shards_dir, "val")
    expected = [dataset[i]["metadata"].values.get("country_code", "") for i in range(24)]
    assert dataset.countries(range(24)) == expected
    assert len(set(expected)) > 2


def test_the_command_reports_them(tiny_shards_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MIN_EXAMPLES", 2)
    command = ["evaluate", "--workdir", str(tmp_path), "--data", str(tiny_shards_dir)]
    options = ["--baseline", "colour", "--protocols", "knn5,precision10"]
    run = CliRunner().invoke(cli, [*command, *options], env={"COLUMNS": "200"})
    assert run.exit_code == 0, run.exception
    rows = read_scores(tmp_path / "evaluation.json")
    worst = [row for row in rows if row.metric.startswith("worst_")]
    assert {row.metric for row in worst} == {"worst_class", "worst_region"}
    assert {row.protocol for row in worst} == {"knn5", "knn5 blocked 1deg"}
    for row in worst:
        (mean,) = [r for r in rows if r.metric == "accuracy" and r.protocol == row.protocol]
        assert row.value <= mean.value
        assert row.value == min(value for _, value in row.by_class)
        assert row.low <= row.value <= row.high
        assert row.n < mean.n
        name = next(name for name, value in row.by_class if value == row.value)
        assert f"{100 * row.value:.1f} {name} (n {row.n})" in run.output
    assert "precision10: precision by class, %" in run.output


def test_the_command_prints_the_main_protocols_and_keeps_all(tmp_path, monkeypatch):
    kept = [replace(ROW, metric=metric) for metric in ("accuracy", "worst_class")]
    kept.append(replace(kept[0], protocol="linear blocked 1deg"))
    more = [replace(row, protocol="knn20-weighted") for row in kept[:2]]
    more.append(replace(ROW, metric="precision", protocol="precision10", by_class=(("a", 0.5),)))
    monkeypatch.setattr(evaluation, "evaluate_baseline", lambda *_, **__: [*kept, *more])
    command = ["evaluate", "--workdir", str(tmp_path), "--data", "x", "--baseline", "colour"]
    env = {"COLUMNS": "200"}
    run = CliRunner().invoke(cli, command, env=env, catch_exceptions=False)
    scores = tmp_path / "evaluation.json"
    assert read_scores(scores) == [*kept, *more]
    assert "linear blocked 1deg" in run.output
    assert "knn20" not in run.output
    assert "precision" not in run.output
    last = run.output.splitlines()[-1]
    assert last.startswith(f"3 of 6 scores; all are in {scores}; `satmip report {tmp_path}`")
    full = CliRunner().invoke(cli, [*command, "--protocols", "x"], env=env, catch_exceptions=False)
    assert all(row.protocol in full.output for row in more)
    assert "precision10: precision by class, %" in full.output


def test_regions_are_those_of_the_queries_and_their_order(tiny_shards_dir, monkeypatch):
    """The accuracy of each region, from the predictions of single examples."""
    monkeypatch.setattr(module, "MIN_EXAMPLES", 2)
    seen = []
    original = score_worst_groups

    def spy(row, truth, predicted, groupings):
        seen.append((truth, predicted, groupings))
        return original(row, truth, predicted, groupings)

    monkeypatch.setattr("satmip_jax.evaluation.protocols.score_worst_groups", spy)
    evaluate_baseline("colour", tiny_shards_dir, protocols=["knn5"])
    dataset = ShardDataset(tiny_shards_dir, "val")
    records = [dataset[i] for i in range(24)]
    plain = [region(r["metadata"].values.get("country_code", "")) for r in records]
    (truth, _, groupings), (blocked_truth, _, blocked) = seen
    assert truth.tolist() == [r["label"] for r in records]
    assert groupings["region"].tolist() == plain
    pairs = sorted(zip([r["label"] for r in records], plain, strict=True))
    located = [r["metadata"].values.get("location") is not None for r in records]
    if all(located):
        assert sorted(zip(blocked_truth.tolist(), blocked["region"].tolist(), strict=True)) == pairs


def test_scores_of_worst_groups_keep_what_they_are_of():
    truth = np.repeat([0, 1], MIN_EXAMPLES)
    predicted = np.zeros_like(truth)
    names = np.array(["River", "Forest"])[truth]
    row = replace(ROW, data="abc", step=4, planned=8, note="a note")
    (score,) = score_worst_groups(row, truth, predicted, {"class": names})
    assert (score.metric, score.value, score.n) == ("worst_class", 0.0, MIN_EXAMPLES)
    assert (score.data, score.step, score.note) == ("abc", 4, "a note")
    assert score.majority is None
