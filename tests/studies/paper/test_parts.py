"""The parts of the comparison: what is trained once, and what that costs."""

import io
from dataclasses import replace
from types import SimpleNamespace

import pytest
from rich.console import Console

from satmip_jax.config.conversion import vary
from satmip_jax.planning.accelerators import ACCELERATORS
from satmip_jax.planning.costs import Cost
from satmip_jax.planning.diagnosis import Diagnosis
from satmip_jax.planning.forecast import Forecast
from satmip_jax.studies.base import MethodConfigs, StudyError
from satmip_jax.studies.eval_data import EvalData
from satmip_jax.studies.paper import cost, run
from satmip_jax.studies.paper.cost import StepTimes, Training, list_trainings, planned_times
from satmip_jax.studies.paper.parts import PARTS, plan_parts
from satmip_jax.studies.paper.run import PaperOptions, run_paper


def parts_of(config, schema, names=tuple(PARTS)):
    return plan_parts(names, MethodConfigs(config), schema)


def base(tiny_config, **changes):
    return vary(tiny_config("satmips"), {"metadata.fields": "all", **changes})


def test_equal_trainings_are_one_run(tiny_config, tiny_shards):
    config = base(tiny_config, **{"optimizer.images": 0, "optimizer.epochs": 16.0})
    parts = parts_of(config, tiny_shards.schema)
    trainings = list_trainings(parts, range(3, 5), 64, None)
    # 3 methods, 3 shorter lengths of each, 5 groups of fields; all fields are SatMIP itself
    assert len({t.name for t in trainings}) == len(trainings) == 2 * (3 + 9 + 5)
    by_name = {p.study.name: {v.name: v for v in p.plan.variants} for p in parts}
    for part, name, shared in (
        ("convergence", "simclr-full", "simclr"),
        ("convergence", "satmips-full", "satmips"),
        ("modalities", "satmip", "satmip"),
        ("modalities", "untrained", "satmips"),
        ("fields", "all", "satmip"),
    ):
        variant = by_name[part][name]
        assert variant.run == shared
        assert variant.config == by_name["methods"][shared].config
        assert variant.features == ("image", "metadata", "both")
    assert by_name["convergence"]["satmip-half"].features == ("image",)
    assert by_name["modalities"]["fields"].baseline == "fields"
    assert list(by_name["efficiency"]) == ["simclr", "satmip", "satmips"]
    images = sum(t.images for t in trainings)
    assert images == 2 * 1024 * (3 + 3 * 7 / 8 + 5)
    assert {t.config.seed for t in trainings} == {3, 4}


def test_other_trainings_are_not_shared(tiny_config, tiny_shards):
    location = vary(base(tiny_config), {"metadata.fields": "Location"})
    parts = parts_of(location, tiny_shards.schema, ["methods", "fields"])
    fields = {v.name: v.run for v in parts[1].plan.variants}
    assert (fields["Location"], fields["all"]) == ("satmip", "all")
    alone = parts_of(location, tiny_shards.schema, ["convergence"])
    assert {v.run for v in alone[0].plan.variants} == {v.name for v in alone[0].plan.variants}
    with pytest.raises(StudyError, match="--parts names encoders: choose from methods, mod"):
        parts_of(location, tiny_shards.schema, ["encoders"])


def test_a_group_of_constant_fields_is_skipped(tiny_config, tiny_shards):
    schema = tiny_shards.schema
    constant = replace(schema.fields["gsd"], std=(1.0, 1.0))
    names = [n for n in ("multispectral_gsd", "pixel_size") if n in schema.fields]
    others = {n: replace(schema.fields[n], count=0) for n in names}
    toy = replace(schema, name="toy", fields={**schema.fields, **others, "gsd": constant})
    (part,) = parts_of(base(tiny_config), toy, ["fields"])
    assert part.plan.skipped == {
        "GSD": "all images of toy have one GSD",
        "GSD+Time+Location": "all images of toy have one GSD",
    }


def test_device_hours_are_those_of_the_steps_that_are_left(tiny_config):
    simclr, satmip = tiny_config("simclr"), tiny_config("satmip")
    trainings = [
        Training("simclr-seed0", simclr, 100, done=40),
        Training("satmip-seed0", satmip, 100),
        Training("satmip-half-seed0", satmip, 50, done=50),
    ]
    times = StepTimes({"simclr": 36.0, "satmip": 18.0}, 8, "toy")
    assert times.device_hours(trainings) == pytest.approx(8 * (60 * 36 + 100 * 18) / 3600)
    assert [t.images for t in trainings] == [60 * 16, 100 * 16, 0]
    assert replace(times, seconds={"simclr": 1.0}).device_hours(trainings) is None
    done = [replace(t, done=t.steps) for t in trainings]
    assert StepTimes({}, 1, "").device_hours(done) == 0


def test_steps_that_a_checkpoint_holds_cost_nothing(
    tiny_config, tiny_shards, tmp_path, monkeypatch
):
    """Of each run its own, and the last one; a complete method is not timed either."""
    config = base(tiny_config, **{"optimizer.images": 1024})  # 64 steps
    parts = parts_of(config, tiny_shards.schema, ["methods"])
    for run_name, steps in (
        ("simclr-seed0", (16, 48)),
        ("satmip-seed0", (64,)),
        ("satmip-seed1", (32, 64)),
        ("satmips-seed1", (80,)),  # of a longer training
        ("simclr", (64,)),
    ):
        for step in steps:
            (tmp_path / run_name / "checkpoints" / str(step)).mkdir(parents=True)
    trainings = list_trainings(parts, [0, 1], 64, tmp_path)
    assert {t.name: t.done for t in trainings} == {
        **{"simclr-seed0": 48, "simclr-seed1": 0},
        **{"satmip-seed0": 64, "satmip-seed1": 64},
        **{"satmips-seed0": 0, "satmips-seed1": 64},
    }
    assert sum(t.images for t in trainings) == 16 * (16 + 64 + 64)

    timed = []
    monkeypatch.setattr(cost, "step_flops", lambda program: {"all": 10 * cost.CPU_LIMIT})
    monkeypatch.setattr(cost, "build_program", lambda c, *_: timed.append(c.method.name))
    times = cost.measured_times(trainings, tiny_shards)
    assert sorted(timed) == ["satmips", "simclr"]
    assert (times.seconds, len(times.notes)) == ({}, 2)
    assert times.device_hours(trainings) is None
    assert times.device_hours([t for t in trainings if t.config.method.name == "satmip"]) == 0


def test_data_sets_are_scored_on_test_and_tuned_on_val(tiny_config, monkeypatch):
    splits = {
        "three": ("train", "val", "test"),
        "no_val": ("train", "test"),
        "two": ("train", "val"),
    }

    def open_set(folder, split):
        return SimpleNamespace(schema=SimpleNamespace(splits=dict.fromkeys(splits[folder], 8)))

    monkeypatch.setattr(run, "ShardDataset", open_set)
    monkeypatch.setattr(run, "by_name", lambda entries: {e.folder: e for e in entries})
    config = base(tiny_config, **{"data.dir": "home", "data.val_split": "id_val"})
    options = PaperOptions(transfer=[*splits, "two"], protocol="linear", block=0.0)
    common = {"protocols": ("knn5", "linear"), "block": 0.0}
    assert run.eval_data(config, options) == {
        "home": EvalData("home", "id_val", "train", **common, leak_free=True),
        "three": EvalData("three", "test", "train", "val", **common),
        "no_val": EvalData("no_val", "test", "train", **common),
        "two": EvalData("two", "val", "train", **common),
    }
    own = run.eval_data(config, replace(options, protocol="knn5", transfer=[]))["home"]
    assert own.protocols == ("knn5",)


def forecast_of(seconds, devices):
    """A forecast whose step takes so long on each device."""
    one = Cost(
        **{"name": "dot", "op_name": "dot", "shape": "", "seconds": seconds, "times": 1},
        **{"bytes": 0, "flops": 0, "by_products": True},
    )
    facts = {"needed": 1, "arguments": 1, "temporaries": 0, "model_flops": 1.0, "peak": 1.0}
    return Forecast(
        ACCELERATORS["h100"], str(devices), devices, **facts, costs=[one], program="HloModule toy"
    )


def test_the_cost_for_an_accelerator_is_doctors(tiny_config, tiny_shards, tmp_path, monkeypatch):
    """Of each method the program is planned once, with the config that its run has."""
    asked = {}

    def diagnose(config, *, accelerator, topology):
        asked[config.method.name] = config
        diagnosis = Diagnosis()
        seconds = {"simclr": 0.02, "satmip": 0.01, "satmips": 0.025}[config.method.name]
        diagnosis.forecast = forecast_of(seconds, 8)
        assert (accelerator.name, topology) == ("h100", "8")
        return diagnosis

    monkeypatch.setattr(cost, "diagnose", diagnose)
    config = base(tiny_config, **{"optimizer.images": 1024})  # 64 steps
    parts = parts_of(config, tiny_shards.schema)
    trainings = list_trainings(parts, [0], 64, None)
    times = planned_times(trainings, ACCELERATORS["h100"], "8")
    own = {v.name: v.config for v in parts[0].plan.variants if v.config}
    assert {name: asked[name].method.name for name in asked} == {n: n for n in times.seconds}
    assert all(asked[name] == own[name] for name in asked)
    lengths = 64 + 8 + 16 + 32
    expected = 8 * (lengths * (0.02 + 0.01 + 0.025) + 5 * 64 * 0.01) / 3600
    assert times.device_hours(trainings) == pytest.approx(expected)

    screen = Console(file=io.StringIO(), width=120, record=True)
    options = PaperOptions(accelerator=ACCELERATORS["h100"], topology="8", seeds=2)
    run_paper(config, tmp_path / "out", options, console=screen)
    printed = screen.export_text()
    assert "34 runs: 17 trainings with 2 seed(s) each" in printed
    assert f"cost: {2 * expected:,.2f} device-hours for 34 runs" in printed
    assert not (tmp_path / "out").exists()  # nothing is written

    # without data, with the size of fMoW
    no_data = vary(config, {"data.dir": "", "optimizer.images": 0, "optimizer.epochs": 1.0})
    run_paper(no_data, tmp_path / "out", options, console=screen)
    assert "17 trainings with 2 seed(s) each" in screen.export_text()


def test_a_step_too_large_for_a_cpu_is_not_timed(tiny_config, tiny_shards, tmp_path, monkeypatch):
    monkeypatch.setattr(cost, "CPU_LIMIT", 1.0)
    screen = Console(file=io.StringIO(), width=120, record=True)
    options = PaperOptions(plan_only=True, parts=["methods"])
    run_paper(base(tiny_config), tmp_path / "out", options, console=screen)
    printed = screen.export_text()
    assert "cost: unknown for 3 runs and 192 images" in printed
    assert "name a device with --accelerator" in printed
    assert run.QUICK == "knn5"
