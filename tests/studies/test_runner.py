"""The run of a study: resumed, failed, refused."""

import json
import xml.etree.ElementTree as ET

import pyarrow.parquet as pq
import pytest

from satmip_jax.config.conversion import vary
from satmip_jax.errors import ConfigError
from satmip_jax.evaluation.results import read_scores
from satmip_jax.studies import scoring, table, tracker
from satmip_jax.studies.base import MethodConfigs, StudyError
from satmip_jax.studies.eval_data import EvalData, by_name
from satmip_jax.studies.registry import open_study
from satmip_jax.studies.runner import run_study
from satmip_jax.studies.training_time import training_seconds
from satmip_jax.training.monitor import NotFiniteError
from tests.studies.toy import count_calls, rows_of


@pytest.mark.usefixtures("compiled_once", "one_device")
def test_interrupted_and_resumed_study_gives_the_table_of_an_uninterrupted_one(
    tiny_config, tmp_path, monkeypatch, quiet
):
    config = tiny_config("simclr")
    complete, resumed = tmp_path / "complete", tmp_path / "resumed"
    run_study("batches", config, complete, console=quiet)
    rows = rows_of(complete)
    assert list(dict.fromkeys(row["variant"] for row in rows)) == ["colour", "untrained", "b8"]
    assert {row["images"] for row in rows if row["variant"] == "b8"} == {"32"}
    assert {row["images"] for row in rows if row["variant"] == "untrained"} == {"0"}

    def stop(call):
        if call == 2:  # 1: untrained encoder, 2: trained run
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        count_calls(patch, scoring, "evaluate", stop)
        with pytest.raises(KeyboardInterrupt):
            run_study("batches", config, resumed, console=quiet)
    assert {row["variant"] for row in rows_of(resumed)} == {"colour", "untrained"}
    scored = count_calls(monkeypatch, scoring, "evaluate")
    run_study("batches", config, resumed, console=quiet)
    assert len(scored) == 1

    assert rows_of(resumed) == rows
    tables = [
        pq.read_table(f / "results.parquet").drop("train_seconds") for f in (complete, resumed)
    ]
    assert tables[0].equals(tables[1])
    assert tables[0].column_names == [*(c for c in table.COLUMNS if c != "train_seconds"), "batch"]
    assert (complete / "study.json").read_bytes() == (resumed / "study.json").read_bytes()
    assert not list(tmp_path.rglob("*.tmp"))

    # scores are those of the run's evaluation.json, the time is that of its log
    run = complete / "runs" / "b8-seed0"
    row = next(row for row in rows_of(complete, without=()) if row["variant"] == "b8")
    saved = {tuple(map(str, r.key)): r.value for r in read_scores(run / "evaluation.json")}
    key = tuple(row[name] for name in ("dataset", "split", "model", "features", "protocol"))
    assert float(row["value"]) == saved[*key, row["metric"]]
    assert float(row["train_seconds"]) == training_seconds(run / "metrics.jsonl", 8) > 0
    log = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert ["images_per_second" in row for row in log] == [False, True, True, True]

    stored = json.loads((complete / "study.json").read_text())
    assert stored["skipped"] == {"b7": "does not divide by the devices"}
    assert (stored["seeds"], stored["failed"]) == ([0], [])
    assert stored["x_axis"] == {"column": "batch", "label": "batch size", "scale": "log"}
    assert {"title", "description", "config", "recipes"} <= stored.keys()
    (machine,) = stored["machines"]
    assert {"versions", "device_kind", "processor"} <= machine.keys()
    ET.parse(complete / "plot.svg")
    assert (complete / "plot.png").read_bytes().startswith(b"\x89PNG")

    # a complete study trains nothing, whatever machine it is opened on
    trained = count_calls(monkeypatch, scoring, "train")
    with monkeypatch.context() as patch:
        patch.setattr(tracker, "environment", lambda: {"device_kind": "another"})
        run_study("batches", config, complete, console=quiet)
    assert not trained
    assert json.loads((complete / "study.json").read_text()) == stored

    # its folder refuses another config and another study
    different = tiny_config("simclr", "--config.optimizer.weight_decay=0.2")
    with pytest.raises(StudyError, match=r"optimizer.weight_decay: 0.1 -> 0.2"):
        run_study("batches", different, complete, console=quiet)
    with pytest.raises(StudyError, match="holds the study 'batches', not 'other'"):
        run_study("other", config, complete, console=quiet)


def test_failed_run_is_recorded_and_the_others_continue(tiny_config, tmp_path, monkeypatch, quiet):
    def fail(call):
        raise NotFiniteError("step 3: loss is nan [x]\nImages of this batch: ...")

    trained = count_calls(monkeypatch, scoring, "train", fail)
    with pytest.raises(StudyError, match=r"4 of 5 runs failed"):
        run_study("batches", tiny_config("simclr"), tmp_path, seeds=2, console=quiet)
    assert len(trained) == 2  # once per seed: variants that share a failed run are not tried
    failed = json.loads((tmp_path / "study.json").read_text())["failed"]
    assert [(entry["variant"], entry["seed"]) for entry in failed] == [
        *(("untrained", 0), ("untrained", 1), ("b8", 0), ("b8", 1))
    ]
    assert all(entry["reason"].startswith("step 3: loss is nan") for entry in failed)
    assert {row["variant"] for row in rows_of(tmp_path)} == {"colour"}
    printed = quiet.export_text()
    assert "5/5  b8, seed 1" in printed
    assert "│ b8, seed 1        │ step 3: loss is nan [x]" in printed


def test_each_method_is_trained_with_its_own_recipe(
    tiny_config, tiny_shards, tmp_path, monkeypatch, quiet
):
    base, satmip = tiny_config("satmips"), tiny_config("satmip")  # other augmentations
    assert base.augment.jitter_p != satmip.augment.jitter_p
    metapred = vary(satmip, {"method.name": "metapred"})
    configs = MethodConfigs(base, {"satmips": base, "satmip": satmip, "metapred": metapred})
    for name in ("methods", "modalities", "convergence", "efficiency", "fields"):
        for variant in open_study(name).plan(configs, tiny_shards.schema).variants:
            if variant.config is not None:
                expected = satmip if variant.config.method.name in ("satmip", "metapred") else base
                assert variant.config.augment == expected.augment, (name, variant.name)
    (changes,) = {tuple(lines) for lines in configs.recipe_differences().values()}
    assert "augment.jitter_p: 0.8 -> 0.0" in changes
    assert not any("method.name" in line for line in changes)

    other = vary(base, {"method.name": "simclr", "augment.hflip": False})
    monkeypatch.setattr(scoring, "train", None)  # every training fails
    with pytest.raises(StudyError, match="4 of 5 runs failed"):
        run_study(
            "batches", base, tmp_path, method_configs={"simclr": other}, seeds=2, console=quiet
        )
    assert "simclr has its own recipe: augment.hflip: True -> False" in quiet.export_text()
    stored = json.loads((tmp_path / "study.json").read_text())
    assert stored["recipes"] == {"simclr": ["augment.hflip: True -> False"]}


def test_two_data_sets_of_one_name_are_refused(tiny_config, tiny_shards_dir, tmp_path):
    copy = tmp_path / "copy"
    copy.symlink_to(tiny_shards_dir)
    with pytest.raises(StudyError, match="both named 'synthetic'"):
        run_study(
            "fields", tiny_config(), tmp_path / "out", eval_data=[str(tiny_shards_dir), str(copy)]
        )
    entry = EvalData(str(copy), "val", "train")
    assert by_name([entry]) == {"synthetic": entry}
    with pytest.raises(ConfigError, match=r"config\.data\.dir is empty"):
        run_study("fields", tiny_config("satmip", "--config.data.dir="), tmp_path / "out")


def test_wrong_options_are_refused(tiny_config, tmp_path, quiet):
    for name, options, message in (
        ("batch-size", {"batch_sizes": "8x"}, "'8x' is not a number of images"),
        ("batch-size", {"learning_rate_rule": "cubic"}, "'cubic': must be one of linear, sqrt"),
        ("fields", {"batch_sizes": "8"}, "'fields' has no option batch_sizes"),
    ):
        with pytest.raises(StudyError, match=message):
            run_study(name, tiny_config(), tmp_path, options=options, console=quiet)
