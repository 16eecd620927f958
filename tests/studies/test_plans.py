"""Variants of each study, and those that a data set rules out."""

from dataclasses import replace

import pytest

from satmip_jax.metadata.field_stats import FieldStats
from satmip_jax.objectives import METHODS
from satmip_jax.studies.base import MethodConfigs, StudyError
from satmip_jax.studies.registry import STUDIES, open_study


def test_selections_without_values_are_skipped(tiny_config, tiny_shards):
    schema, config = tiny_shards.schema, tiny_config("satmips")

    def plan(*present):
        stats = {
            name: replace(s, count=7) if name in present else FieldStats()
            for name, s in schema.fields.items()
        }
        return open_study("fields").plan(
            MethodConfigs(config), replace(schema, name="toy", fields=stats)
        )

    assert [v.name for v in plan("gsd", "location", "timestamp", "cloud_cover").variants] == [
        *("GSD", "Time", "Location", "GSD+Time+Location", "all")
    ]
    partial = plan("gsd", "location", "country_code")
    assert [v.name for v in partial.variants] == ["GSD", "Location", "all"]
    assert partial.skipped == {
        "Time": "toy has no values of Time",
        "Angles": "toy has no values of Angles",
        "GSD+Time+Location": "toy has no values of Time",
    }
    assert [v.values["field_count"] for v in partial.variants] == [1, 2, 3]
    assert {v.config.method.name for v in partial.variants} == {"satmip"}
    assert [v.config.metadata.fields for v in partial.variants] == ["GSD", "Location", "all"]
    assert config.method.name == "satmips"  # variants leave the base config as it is
    single = plan("location")
    assert [v.name for v in single.variants] == ["Location"]
    assert single.skipped["all"] == "in toy these are the same fields as Location"
    with pytest.raises(StudyError, match="toy has no metadata"):
        plan()


def test_convergence_plans_full_runs_of_four_lengths(tiny_config, tiny_shards):
    config = tiny_config("satmips", "--config.optimizer.images=1000")  # 63 steps of 16
    plan = open_study("convergence").plan(MethodConfigs(config), tiny_shards.schema)
    steps = {v.name: v.config.optimizer.images / 16 for v in plan.variants}
    for method in ("simclr", "satmip", "satmips"):
        lengths = [steps[f"{method}-{name}"] for name in ("eighth", "quarter", "half", "full")]
        assert lengths == [8, 16, 32, 63]
    short = tiny_config("satmips", "--config.optimizer.images=32")
    plan = open_study("convergence").plan(MethodConfigs(short), tiny_shards.schema)
    assert [v.name for v in plan.variants[:2]] == ["simclr-eighth", "simclr-full"]
    assert plan.skipped["simclr-half"] == "same number of steps (1) as eighth"


def test_variants_of_the_other_studies(tiny_config, tiny_shards):
    config, schema = MethodConfigs(tiny_config("simclr")), tiny_shards.schema
    plan = open_study("methods").plan(config, schema)
    assert [v.name for v in plan.variants] == [
        *("untrained", "colour", "imagestats", "patches", "fields", "numbers", "simclr", "satmip"),
        *("satmip-text", "satmips", "satmips-uncoupled", "metapred", "guided", "supervised"),
    ]
    assert [v.method for v in plan.variants[:2]] == ["untrained", "colour"]
    plan = open_study("methods").plan(config, replace(schema, classes=()))
    assert "supervised" in plan.skipped
    assert "supervised" not in [v.name for v in plan.variants]
    plan = open_study("modalities").plan(config, schema)
    assert {v.run or v.name for v in plan.variants if v.config} == {"satmip", "satmips"}
    with pytest.raises(StudyError, match="'simclr', which has no metadata encoder"):
        open_study("encoders").plan(config, schema)
    plan = open_study("encoders").plan(MethodConfigs(tiny_config("satmip")), schema)
    assert [v.config.metadata.encoder for v in plan.variants] == ["tabular", "text"]
    assert {v.config.method.name for v in plan.variants} == {"satmip"}
    for name in STUDIES:
        assert open_study(name).name == name
    with pytest.raises(StudyError, match="unknown study 'batch'"):
        open_study("batch")


def test_direct_prediction_of_the_location_alone_is_planned(tiny_config, tiny_shards):
    """Its clusters are computed when the run starts, so the prepared data have none."""
    config = tiny_config("satmips", "--config.metadata.fields=location")
    plan = open_study("methods").plan(MethodConfigs(config), tiny_shards.schema)
    assert "metapred" in [v.name for v in plan.variants]
    assert plan.skipped.keys() == {"guided"}  # its guides follow from the country and the time


def test_new_method_is_compared_by_itself(tiny_config, tiny_shards, monkeypatch):
    monkeypatch.setitem(METHODS, "toy", METHODS["simclr"])
    configs = MethodConfigs(tiny_config("satmips"))
    for name in ("methods", "efficiency"):
        plan = open_study(name).plan(configs, tiny_shards.schema)
        assert [v.config.method.name for v in plan.variants if v.name == "toy"] == ["toy"]
        assert plan.variants[-1].name == "supervised"
