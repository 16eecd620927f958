"""Studies: interrupted or not, the same table; failures and refusals; what each study compares."""

import csv
import io
import json
import xml.etree.ElementTree as ET
from dataclasses import replace
from functools import partial

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from jax.experimental.compilation_cache import compilation_cache
from rich.console import Console

from satmip_jax.cli import cli
from satmip_jax.config.conversion import vary
from satmip_jax.errors import ConfigError
from satmip_jax.evaluation.results import Score, read_scores
from satmip_jax.metadata.statistics import FieldStats
from satmip_jax.objectives import METHODS
from satmip_jax.studies import efficiency, plot, runner, scoring, table, tracker
from satmip_jax.studies.base import Axis, MethodConfigs, Plan, Study, StudyError, Variant
from satmip_jax.studies.registry import STUDIES, open_study
from satmip_jax.studies.runner import labelled, run_study
from satmip_jax.studies.training_time import training_seconds
from satmip_jax.training.monitor import NotFiniteError
from tests.conftest import REPOSITORY, use_one_device


def batches(recipes, schema):
    """A baseline, a short SimCLR and its untrained twin."""
    run = vary(recipes.of("simclr"), {"optimizer.batch_size": 8, "optimizer.images": 32})
    untrained = Variant("untrained", run, init="random", run="b8", values={"batch": 0})
    colour = Variant("colour", baseline="colour")
    skipped = {"b7": "does not divide by the devices"}
    return Plan([colour, untrained, Variant("b8", run, values={"batch": 8})], skipped)


# A new study is what a file in satmip_jax/studies holds.
BATCHES = Study(
    name="batches",
    title="Batches",
    description="Scores against the batch size.",
    plan=batches,
    x=(Axis("batch", "batch size", "log"),),
    draw=plot.lines,
    columns={"batch": int},
)
OTHER = replace(BATCHES, name="other")
POINTS = replace(BATCHES, draw=plot.points, columns={})
TWO = replace(
    efficiency.STUDY,
    name="two",
    plan=lambda *args: Plan(efficiency.STUDY.plan(*args).variants[:2]),
)


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    for name in ("batches", "other", "two"):
        monkeypatch.setitem(STUDIES, name, f"{__name__}:{name.upper()}")
    for name in ("evaluate", "evaluate_baseline"):  # the quickest protocol will do
        quick = partial(getattr(scoring, name), protocols=["knn5"], block=0)
        monkeypatch.setattr(scoring, name, quick)


@pytest.fixture
def _compiled_once(tmp_path):
    """What is compiled twice is compiled once."""
    changes = {
        "jax_compilation_cache_dir": str(tmp_path / "cache"),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": 0,
    }
    before = {name: getattr(jax.config, name) for name in changes}
    for values in (changes, before):
        for name, value in values.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()
        if values is changes:
            yield


@pytest.fixture
def _one_device(monkeypatch):
    """Compiling for one device is quicker than for eight."""
    use_one_device(monkeypatch)


@pytest.fixture
def quiet():
    return Console(file=io.StringIO(), width=200, record=True)


def rows_of(folder, *, without=("train_seconds",)):
    with (folder / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if k not in without} for row in rows]


def count_calls(monkeypatch, module, name, before=lambda call: None):
    """Record the arguments of a function's calls, and do `before` with them first."""
    calls, function = [], getattr(module, name)

    def counted(*args, **kwargs):
        calls.append(args)
        before(len(calls))
        return function(*args, **kwargs)

    monkeypatch.setattr(module, name, counted)
    return calls


@pytest.mark.usefixtures("_compiled_once", "_one_device")
def test_stopped_and_resumed_gives_the_table_of_an_uninterrupted_study(
    tiny_config, tmp_path, monkeypatch, quiet
):
    config = tiny_config("simclr")
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    run_study("batches", config, whole, console=quiet)
    rows = rows_of(whole)
    assert list(dict.fromkeys(row["variant"] for row in rows)) == ["colour", "untrained", "b8"]
    assert {row["images"] for row in rows if row["variant"] == "b8"} == {"32"}
    assert {row["images"] for row in rows if row["variant"] == "untrained"} == {"0"}

    def stop(call):
        if call == 2:  # of the untrained twin and of the trained run
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        count_calls(patch, scoring, "evaluate", stop)
        with pytest.raises(KeyboardInterrupt):
            run_study("batches", config, cut, console=quiet)
    assert {row["variant"] for row in rows_of(cut)} == {"colour", "untrained"}
    scored = count_calls(monkeypatch, scoring, "evaluate")
    run_study("batches", config, cut, console=quiet)
    assert len(scored) == 1

    assert rows_of(cut) == rows
    tables = [pq.read_table(f / "results.parquet").drop("train_seconds") for f in (whole, cut)]
    assert tables[0].equals(tables[1])
    assert tables[0].column_names == [*(c for c in table.COLUMNS if c != "train_seconds"), "batch"]
    assert (whole / "study.json").read_bytes() == (cut / "study.json").read_bytes()
    assert not list(tmp_path.rglob("*.tmp"))

    # the rows are those of the run's own file, and the time that of its log
    run = whole / "runs" / "b8-seed0"
    row = next(row for row in rows_of(whole, without=()) if row["variant"] == "b8")
    kept = {tuple(map(str, r.key)): r.value for r in read_scores(run / "evaluation.json")}
    key = tuple(row[name] for name in ("dataset", "split", "model", "features", "protocol"))
    assert float(row["value"]) == kept[*key, row["metric"]]
    assert float(row["train_seconds"]) == training_seconds(run / "metrics.jsonl", 8) > 0
    log = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert ["images_per_second" in row for row in log] == [False, True, True, True]

    facts = json.loads((whole / "study.json").read_text())
    assert facts["skipped"] == {"b7": "does not divide by the devices"}
    assert (facts["seeds"], facts["failed"]) == ([0], [])
    assert facts["x_axis"] == {"column": "batch", "label": "batch size", "scale": "log"}
    assert {"title", "description", "config", "recipes"} <= facts.keys()
    (machine,) = facts["machines"]
    assert {"versions", "device_kind", "processor"} <= machine.keys()
    ET.parse(whole / "plot.svg")
    assert (whole / "plot.png").read_bytes().startswith(b"\x89PNG")

    # a finished study does nothing, wherever it is looked at
    trained = count_calls(monkeypatch, scoring, "train")
    with monkeypatch.context() as patch:
        patch.setattr(tracker, "environment", lambda: {"device_kind": "another"})
        run_study("batches", config, whole, console=quiet)
    assert not trained
    assert json.loads((whole / "study.json").read_text()) == facts

    # another config or study is refused in its folder
    different = tiny_config("simclr", "--config.optimizer.weight_decay=0.2")
    with pytest.raises(StudyError, match=r"optimizer.weight_decay: 0.1 -> 0.2"):
        run_study("batches", different, whole, console=quiet)
    with pytest.raises(StudyError, match="holds the study 'batches', not 'other'"):
        run_study("other", config, whole, console=quiet)


def test_a_failing_variant_is_recorded_and_the_others_go_on(
    tiny_config, tmp_path, monkeypatch, quiet
):
    def fail(call):
        raise NotFiniteError("step 3: loss is nan [x]\nImages of this batch: ...")

    trained = count_calls(monkeypatch, scoring, "train", fail)
    with pytest.raises(StudyError, match=r"4 of 5 failed"):
        run_study("batches", tiny_config("simclr"), tmp_path, seeds=2, console=quiet)
    assert len(trained) == 2  # once a seed: what shares a run is not tried again
    failed = json.loads((tmp_path / "study.json").read_text())["failed"]
    assert [(entry["variant"], entry["seed"]) for entry in failed] == [
        *(("untrained", 0), ("untrained", 1), ("b8", 0), ("b8", 1))
    ]
    assert all(entry["reason"].startswith("step 3: loss is nan") for entry in failed)
    assert {row["variant"] for row in rows_of(tmp_path)} == {"colour"}
    printed = quiet.export_text()
    assert "5/5  b8, seed 1" in printed
    assert "│ b8, seed 1        │ step 3: loss is nan [x]" in printed


def test_mean_and_deviation_are_those_of_numpy(quiet):
    rng = np.random.default_rng(0)
    values = {("a", "knn5"): rng.random(5), ("b", "knn5"): rng.random(1), ("a", "linear"): [0.25]}
    rows = [
        row_of(variant=v, protocol=p, seed=seed, value=float(x), train_seconds=float(seed))
        for (v, p), xs in values.items()
        for seed, x in enumerate(xs)
    ]
    summaries = table.summarize(POINTS, rng.permutation(rows).tolist())
    assert len(summaries) == 3
    for s in summaries:
        xs = np.asarray(values[s.cells["variant"], s.cells["protocol"]])
        assert s.mean == pytest.approx(np.mean(xs))
        assert len(s.values) == len(xs)
        assert s.train_seconds == pytest.approx(np.mean(range(len(xs))))
        if len(xs) > 1:
            assert s.std == pytest.approx(np.std(xs, ddof=1))
        else:
            assert s.std is None
    table.show(POINTS, summaries, quiet)
    xs = 100 * values["a", "knn5"]
    printed = quiet.export_text()
    assert f"{xs.mean():.1f} ± {xs.std(ddof=1):.1f}" in printed
    assert f"{100 * values['b', 'knn5'][0]:.1f} " in printed


def row_of(**changes):
    """A line of a table."""
    row = Score("toy $5_x$ set", "val", "m", "image", "knn5", "accuracy", 0.5, 10, 0.4, 0.6)
    facts = {"study": "s", "variant": "a", "method": "simclr", "seed": 0, "images": 64}
    return {**facts, "train_seconds": 1.0, **vars(row), **changes}


@pytest.mark.usefixtures("_one_device")
def test_efficiency_is_of_real_compiled_steps(tiny_config, tmp_path, monkeypatch, quiet):
    monkeypatch.setattr(efficiency, "ROUNDS", 2)
    monkeypatch.setattr(efficiency, "STEPS", 2)
    config = tiny_config("satmips", "--config.optimizer.batch_size=512")
    run_study("two", config, tmp_path, seeds=3, console=quiet)
    rows = rows_of(tmp_path)
    names = ["simclr", "satmip"]
    assert list(dict.fromkeys(row["variant"] for row in rows)) == names
    assert {row["seed"] for row in rows} == {"0"}
    got = {(row["variant"], row["metric"]): float(row["value"]) for row in rows}
    for name in names:
        assert got[name, "step_seconds"] > 0
        ratio = got[name, "compiled_bytes"] / got["simclr", "compiled_bytes"]
        assert got[name, "relative_compiled_memory"] == pytest.approx(ratio)
    assert got["simclr", "relative_step_time"] == 1
    assert got["simclr", "compiled_bytes"] > got["satmip", "compiled_bytes"]
    times = [row for row in rows if row["metric"] == "step_seconds"]
    assert {row["n"] for row in times} == {"4"}
    assert all(float(r["low"]) <= float(r["value"]) <= float(r["high"]) for r in times)
    compiled = count_calls(monkeypatch, efficiency, "compile_step")
    run_study("two", config, tmp_path, console=quiet)
    assert not compiled


def test_fields_leaves_out_what_the_data_does_not_tell(tiny_config, tiny_shards):
    schema, config = tiny_shards.schema, tiny_config("satmips")

    def plan(*known):
        stats = {
            name: replace(s, count=7) if name in known else FieldStats()
            for name, s in schema.fields.items()
        }
        return open_study("fields").plan(
            MethodConfigs(config), replace(schema, name="toy", fields=stats)
        )

    assert [v.name for v in plan("gsd", "location", "timestamp", "cloud_cover").variants] == [
        *("GSD", "Time", "Location", "GSD+Time+Location", "all")
    ]
    some = plan("gsd", "location", "country_code")
    assert [v.name for v in some.variants] == ["GSD", "Location", "all"]
    assert some.skipped == {
        "Time": "toy has no values of Time",
        "Angles": "toy has no values of Angles",
        "GSD+Time+Location": "toy has no values of Time",
    }
    assert [v.values["field_count"] for v in some.variants] == [1, 2, 3]
    assert {v.config.method.name for v in some.variants} == {"satmip"}
    assert [v.config.metadata.fields for v in some.variants] == ["GSD", "Location", "all"]
    assert config.method.name == "satmips"  # a variant never changes what it starts from
    one = plan("location")
    assert [v.name for v in one.variants] == ["Location"]
    assert one.skipped["all"] == "in toy these are the same fields as Location"
    with pytest.raises(StudyError, match="no metadata at all"):
        plan()


def test_convergence_is_full_runs_of_four_lengths(tiny_config, tiny_shards):
    config = tiny_config("satmips", "--config.optimizer.images=1000")  # 63 steps of 16
    plan = open_study("convergence").plan(MethodConfigs(config), tiny_shards.schema)
    steps = {v.name: v.config.optimizer.images / 16 for v in plan.variants}
    for method in ("simclr", "satmip", "satmips"):
        lengths = [steps[f"{method}-{name}"] for name in ("eighth", "quarter", "half", "full")]
        assert lengths == [8, 16, 32, 63]
    short = tiny_config("satmips", "--config.optimizer.images=32")
    plan = open_study("convergence").plan(MethodConfigs(short), tiny_shards.schema)
    assert [v.name for v in plan.variants[:2]] == ["simclr-eighth", "simclr-full"]
    assert plan.skipped["simclr-half"] == "as many steps (1) as eighth"


def test_what_the_other_studies_compare(tiny_config, tiny_shards):
    config, schema = MethodConfigs(tiny_config("simclr")), tiny_shards.schema
    plan = open_study("methods").plan(config, schema)
    assert [v.name for v in plan.variants] == [
        *("untrained", "colour", "patches", "fields", "simclr", "satmip", "satmip-text"),
        *("satmips", "satmips-uncoupled", "metapred", "supervised"),
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


def test_each_method_is_trained_by_its_own_recipe(
    tiny_config, tiny_shards, tmp_path, monkeypatch, quiet
):
    given, own = tiny_config("satmips"), tiny_config("satmip")  # which has other views
    assert given.augment.jitter_p != own.augment.jitter_p
    told = vary(own, {"method.name": "metapred"})
    recipes = MethodConfigs(given, {"satmips": given, "satmip": own, "metapred": told})
    for name in ("methods", "modalities", "convergence", "efficiency", "fields"):
        for variant in open_study(name).plan(recipes, tiny_shards.schema).variants:
            if variant.config is not None:
                right = own if variant.config.method.name in ("satmip", "metapred") else given
                assert variant.config.augment == right.augment, (name, variant.name)
    (changes,) = {tuple(lines) for lines in recipes.departures().values()}
    assert "augment.jitter_p: 0.8 -> 0.0" in changes
    assert not any("method.name" in line for line in changes)

    other = vary(given, {"method.name": "simclr", "augment.hflip": False})
    monkeypatch.setattr(scoring, "train", None)  # nothing can be trained
    with pytest.raises(StudyError, match="4 of 5 failed"):
        run_study("batches", given, tmp_path, recipes={"simclr": other}, seeds=2, console=quiet)
    assert "simclr by its own recipe: augment.hflip: True -> False" in quiet.export_text()
    facts = json.loads((tmp_path / "study.json").read_text())
    assert facts["recipes"] == {"simclr": ["augment.hflip: True -> False"]}


def test_data_that_cannot_be_told_apart_is_refused(tiny_config, tiny_shards_dir, tmp_path):
    copy = tmp_path / "copy"
    copy.symlink_to(tiny_shards_dir)
    with pytest.raises(StudyError, match="both named 'synthetic'"):
        labelled(tiny_config(), [str(tiny_shards_dir), str(copy)])
    assert labelled(tiny_config(), [str(copy), str(copy)]) == {"synthetic": str(copy)}
    with pytest.raises(ConfigError, match=r"config\.data\.dir is empty"):
        run_study("fields", tiny_config("satmip", "--config.data.dir="), tmp_path / "out")


def test_the_command_hands_everything_on(tiny_shards_dir, monkeypatch):
    calls = []
    monkeypatch.setattr(runner, "run_study", lambda *args, **kwargs: calls.append((args, kwargs)))
    config = f"{REPOSITORY / 'configs' / 'eurosat.py'}:satmip,cpu"
    words = ["study", "fields", "--config", config, "--out", "x", "--seeds", "2"]
    words += ["--eval-data", "a", "--eval-data", "b", "--config.seed=7"]
    assert CliRunner().invoke(cli, words, catch_exceptions=False).exit_code == 0
    (((name, given, out), options),) = calls
    assert (name, out, given.seed, given.method.name) == ("fields", "x", 7, "satmip")
    assert {m: (c.seed, c.method.name) for m, c in options.pop("recipes").items()} == {
        method: (7, method) for method in METHODS
    }
    assert options == {"seeds": 2, "eval_data": ("a", "b"), "options": {}}
    refused = CliRunner().invoke(cli, ["study", "field", "--config", config, "--out", "x"])
    assert refused.exit_code == 2
    assert all(name in refused.output for name in ("fields", "convergence", "methods"))


def test_training_time_leaves_compilation_and_evaluation_out(tmp_path):
    """Naively: every step took half a second; the first after a start has no rate."""
    rows = [
        {"step": 0, "loss": 1.0},  # the first step alone
        {"step": 3, "loss": 1.0, "images_per_second": 16 / 0.5},
        {"step": 4, "knn_image": 0.3},
        {"step": 7, "loss": 1.0, "images_per_second": 16 / 0.5},
    ]
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert training_seconds(path, 16) == pytest.approx(8 * 0.5)
    path.write_text(json.dumps(rows[0]) + "\n")
    assert training_seconds(path, 16) is None


@pytest.mark.parametrize("draw", [plot.points, plot.lines, plot.bars])
def test_plots_are_drawn_of_anything(draw):
    """Nothing, one seed, three; names from data are no formulas; the same bytes every time."""
    rng = np.random.default_rng(0)
    metric = "relative_step_time" if draw is plot.bars else "accuracy"
    study = replace(BATCHES, draw=draw, metrics=(metric,))
    rows = [
        row_of(
            **{"variant": variant, "method": variant, "seed": seed, "batch": 2**i},
            **{"features": kind, "metric": metric, "protocol": protocol},
            value=float(rng.random()),
        )
        for i, variant in enumerate(["a", "b_$", "c", "d", "e"])
        for seed in range(3 if variant == "a" else 1)
        for kind in ("image", "both")
        for protocol in ("knn5", "linear blocked 1deg")
    ]
    files = [plot.render(study, table.summarize(study, part)) for part in (rows, rows[:], [])]
    assert files[0] == files[1] != files[2]
    for file in files:
        ET.fromstring(file["svg"])


@pytest.mark.usefixtures("_one_device")
def test_batch_sizes_are_compared_at_the_same_images(tiny_config, tmp_path, quiet):
    config = tiny_config("satmip", "--config.optimizer.learning_rate=0.01")
    options = {"batch_sizes": "8,16,128", "learning_rate_rule": "sqrt"}
    run_study("batch-size", config, tmp_path, options=options, console=quiet)
    rows = [row for row in rows_of(tmp_path) if row["metric"] == "accuracy"]
    assert {row["images"] for row in rows} == {"64"}
    facts = {row["batch_size"]: (row["learning_rate"], row["exchange"]) for row in rows}
    assert facts.keys() == {"8", "16"}
    assert float(facts["8"][0]) == pytest.approx(0.01 / 2**0.5)
    assert facts["16"] == ("0.01", "gather")
    assert all(float(row["compiled_gib"]) > 0 for row in rows)
    assert "the train split has 64 images" in quiet.export_text()
    assert (tmp_path / "plot.png").stat().st_size > 10_000


def test_wrong_options_of_a_study_are_named(tiny_config, tmp_path, quiet):
    for name, text, message in (
        ("batch-size", "8x", "'8x' is no number of images"),
        ("fields", "8", "'fields' has no option batch_sizes"),
    ):
        options = {"batch_sizes": text}
        with pytest.raises(StudyError, match=message):
            run_study(name, tiny_config(), tmp_path, options=options, console=quiet)
