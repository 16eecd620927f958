"""What a study scores: which encoders, kinds of features, fields and splits, and under what key."""

from dataclasses import fields, replace

import pytest

from satmip_jax.config.conversion import vary
from satmip_jax.data.shard_dataset import ShardDataset
from satmip_jax.metadata.field_stats import FieldStats
from satmip_jax.metadata.fields import FIELDS, select_fields
from satmip_jax.studies import scoring
from satmip_jax.studies.base import Variant
from satmip_jax.studies.eval_data import EvalData, of_training
from satmip_jax.studies.scoring import LEAK_FREE, score_run
from satmip_jax.studies.tracker import StudyRun


@pytest.fixture
def asked(monkeypatch):
    """Arguments of the evaluations, which score nothing."""
    calls = []
    for name in ("evaluate", "evaluate_baseline"):
        monkeypatch.setattr(scoring, name, lambda *args, **options: calls.append((*args, options)))
    return calls


def run_of(folder, config, **changes):
    variant = Variant("a", config, **changes)
    return StudyRun(variant, 0 if config else None, config, folder)


def test_a_run_is_scored_as_its_variant_says(tiny_config, tiny_shards_dir, tmp_path, asked):
    data = EvalData(str(tiny_shards_dir), "val", "train", protocols=("linear",), block=0.0)
    config = vary(tiny_config("satmips"), {"metadata.fields": "all"})
    score_run(run_of(tmp_path, config), data)
    untrained = run_of(tmp_path, config, init="random", features=("image",))
    score_run(untrained, replace(data, leak_free=True, tune="x", protocols=None, block=None))
    common = {"split": "val", "bank": "train"}
    options = {**common, "protocols": ("linear",), "block": 0.0, "init": "trained"}
    folders = (tmp_path, str(tiny_shards_dir))
    assert asked == [
        (*folders, {**options, "features": ("image", "metadata", "both"), "fields": ["all"]}),
        (*folders, {**common, "tune": "x", "init": "random", "features": ("image",)}
         | {"fields": ["all"]}),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("trained_on", "recorded", "leak_free"),
    [
        ("all", ("gsd", "location"), True),
        ("all", ("gsd", "pixel_size"), False),  # nothing would be left
        ("all", ("location", "timestamp"), False),  # nothing is left out
        ("Location", ("gsd", "location"), False),
        ("GSD", ("gsd", "location"), False),
        ("GSD+Location", ("gsd", "location"), True),
        ("baseline", ("gsd", "location"), True),
        ("baseline", ("location",), False),
    ],
)
def test_leak_free_scores_are_of_runs_that_see_leaks_and_other_fields(
    tiny_config, tiny_shards_dir, tmp_path, asked, monkeypatch, trained_on, recorded, leak_free
):
    schema = ShardDataset(tiny_shards_dir, "train").schema
    stats = {n: s if n in recorded else FieldStats() for n, s in schema.fields.items()}
    toy = replace(schema, fields=stats)
    monkeypatch.setattr(scoring, "ShardDataset", lambda *_: type("Data", (), {"schema": toy}))
    config = None
    if trained_on != "baseline":
        config = vary(tiny_config("satmips"), {"metadata.fields": trained_on})
    run = run_of(tmp_path, config, **({} if config else {"baseline": "fields"}))
    score_run(run, EvalData(str(tiny_shards_dir), "val", "train", leak_free=True))
    assert asked[0][-1]["fields"] == (["all", "all-leak"] if leak_free else ["all"])


def test_leak_free_fields_are_all_that_do_not_reveal_the_size_of_the_image():
    shown = {field.name for field in select_fields(LEAK_FREE)}
    assert not shown & {"gsd", "pixel_size", "multispectral_gsd"}
    assert shown >= {"location", "timestamp", "country_code", "cloud_cover"}
    assert shown == {field.name for field in FIELDS if not field.leak}


def test_a_baseline_of_metadata_is_not_scored_without_any(
    tiny_shards_dir, tmp_path, asked, monkeypatch
):
    schema = ShardDataset(tiny_shards_dir, "train").schema
    schema = replace(schema, fields=dict.fromkeys(schema.fields, FieldStats()))
    monkeypatch.setattr(scoring, "ShardDataset", lambda *_: type("Data", (), {"schema": schema}))
    data = EvalData(str(tiny_shards_dir), "val", "train")
    assert score_run(run_of(tmp_path, None, baseline="numbers"), data) == []
    assert not asked
    score_run(run_of(tmp_path, None, baseline="colour"), data)
    assert [call[0] for call in asked] == ["colour"]


def test_scores_of_other_splits_or_options_have_another_key():
    """A resumed study takes what is saved under the key for what it would compute."""
    base = EvalData("a", "test", "train", "val", ("linear",), 1.0, leak_free=True)
    others = {
        "folder": "b",
        "split": "val",
        "bank": "val",
        "tune": None,
        "protocols": None,
        "block": 2.0,
        "leak_free": False,
    }
    assert others.keys() == {field.name for field in fields(EvalData)}
    keys = {name: replace(base, **{name: value}).description for name, value in others.items()}
    assert keys.pop("folder") == base.description  # a folder may be moved
    assert len({base.description, *keys.values()}) == 1 + len(keys)
    assert replace(base, block=0.0).description != replace(base, block=None).description


def test_a_study_scores_the_validation_split_by_the_training_split(tiny_config):
    config = vary(tiny_config(), {"data.train_split": "one", "data.val_split": "two"})
    entry = of_training(config)
    assert (entry.split, entry.bank, entry.tune) == ("two", "one", None)
    assert entry.options == {"split": "two", "bank": "one"}
