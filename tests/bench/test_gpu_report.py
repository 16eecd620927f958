"""The report on a GPU: its plan, time limits, resumption, tables and launcher."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from satmip_jax.bench import gpu_report
from satmip_jax.bench.gpu_plan import CLI, Part, PlanError, find_prepared, plan
from satmip_jax.bench.gpu_report import Report, run_part
from satmip_jax.bench.gpu_tables import page
from satmip_jax.cli import cli
from satmip_jax.config.loading import load_method_configs
from tests.conftest import REPOSITORY


@pytest.fixture
def archives(tmp_path):
    """A folder that looks like EuroSAT as published."""
    folder = tmp_path / "eurosat"
    folder.mkdir()
    (folder / "eurosat_train.zip").touch()
    return folder


def prepared(folder, name):
    folder.mkdir(parents=True)
    (folder / "schema.json").write_text(json.dumps({"name": name}))


@pytest.mark.parametrize("tiny", [False, True])
def test_every_command_has_options_and_configs_that_exist(tmp_path, archives, tiny):
    for part in plan(tmp_path, archives, tiny=tiny):
        assert 0 < part.least <= part.limit
        if part.command[:2] != CLI:
            continue
        command, words = cli, list(part.command[2:])
        while hasattr(command, "commands") or hasattr(command, "get_command"):
            command = command.get_command(None, words.pop(0))
        context = command.make_context(part.name, words)  # unknown options are errors
        if "config" in context.params:
            methods = (context.params.get("methods") or "simclr").split(",")
            configs = load_method_configs(
                context.params["config"], context.params["overrides"], methods
            )
            assert list(configs) == methods


def test_the_most_valuable_parts_come_first(tmp_path, archives):
    names = [part.name for part in plan(tmp_path, archives)]
    assert names[:4] == ["step-s16", "step-b16", "step-s16-torch", "step-b16-torch"]
    assert names[4:8] == ["loss", "augment", "knn", "kernels"]
    assert names[-1] == "eurosat"
    assert len(set(names)) == len(names)


def test_what_is_missing_is_named(tmp_path):
    parts = {part.name: part for part in plan(tmp_path, None)}
    assert parts["loss"].missing() == ""
    assert "give its archives and CSV, or prepared folders, with --data" in (
        parts["eurosat"].missing()
    )
    absent = Part("x", "x", (), 1, 1, modules=("json", "no_such_package"))
    assert absent.missing() == "not installed: no_such_package"
    with pytest.raises(PlanError, match="no such folder"):
        plan(tmp_path, tmp_path / "absent")


def test_prepared_folders_are_used_by_their_split(tmp_path):
    names = {"a": "eurosat", "b": "eurosat_spatial", "c": "eurosat_split_longitude"}
    for folder, name in names.items():
        prepared(tmp_path / "data" / folder, name)
    found = find_prepared(tmp_path / "data")
    assert {split: path.name for split, path in found.items()} == {
        "random": "a",
        "spatial": "b",
        "longitude": "c",
    }
    parts = plan(tmp_path, tmp_path / "data")
    assert not [part for part in parts if part.name.startswith("prepare")]
    assert f"--data=spatial={tmp_path / 'data' / 'b'}" in parts[-1].command
    prepared(tmp_path / "data" / "d", "eurosat_random")
    with pytest.raises(PlanError, match="both of the random split"):
        find_prepared(tmp_path / "data")


def script(name, code, tmp_path, **options):
    """A part that notes each of its starts, then runs `code`."""
    start = f"open({str(tmp_path / name)!r}, 'a').write('x'); "
    return Part(name, name, ("-c", start + code), **{"limit": 60, "least": 1, **options})


def starts(tmp_path, name):
    path = tmp_path / name
    return len(path.read_text()) if path.exists() else 0


def test_finished_parts_are_not_repeated_and_failures_do_not_stop_the_others(tmp_path):
    parts = [
        script("bad", "raise MemoryError('out of memory')", tmp_path),
        script("absent", "", tmp_path, modules=("no_such_package",)),
        script("good", "print('fine')", tmp_path),
        script("long", "", tmp_path, least=10_000, limit=20_000),
    ]
    out = tmp_path / "out"
    Report(out, parts, 100).run()
    assert [starts(tmp_path, name) for name in ("bad", "absent", "good", "long")] == [1, 0, 1, 0]
    text = (out / "report.md").read_text()
    assert "unfinished: status 1: MemoryError: out of memory" in text
    assert "not started: not installed: no_such_package" in text
    assert "it needs 10000 s or more" in text
    assert (out / "good.log").read_text() == "fine\n"

    Report(out, parts, 100).run()
    assert [starts(tmp_path, name) for name in ("bad", "good")] == [2, 1]
    changed = [script("good", "print('other')", tmp_path)]  # a result of another command
    Report(out, changed, 100).run()
    assert starts(tmp_path, "good") == 2


def test_rows_of_an_unfinished_start_are_dropped_unless_the_part_resumes(tmp_path):
    out = tmp_path / "out"
    parts = [
        script("again", "", tmp_path),
        script("resumes", "", tmp_path, resumes=True),
    ]
    report = Report(out, parts, 100)
    for part in parts:
        (out / f"{part.name}.jsonl").write_text("")
    report.run()
    assert not (out / "again.jsonl").exists()
    assert (out / "resumes.jsonl").exists()


def test_a_part_is_stopped_at_its_limit(tmp_path):
    part = script("endless", "import time; time.sleep(600)", tmp_path)
    assert run_part(part, 1.0, tmp_path) == "stopped at its limit of 1 s"


def test_time_is_reserved_for_trainings_until_they_have_finished(tmp_path):
    training = script("training", "", tmp_path, training=True)
    report = Report(tmp_path / "out", [script("speed", "", tmp_path), training], 1000)
    speed = report.parts[0]
    assert report.left(speed) == pytest.approx(600, abs=60)
    assert report.left(training) == pytest.approx(1000, abs=60)
    report._run(training, 60)
    assert report.left(speed) == pytest.approx(1000, abs=60)


def test_the_bound_of_mfu_is_that_of_a_step_as_short_as_the_bound():
    common = {"bench": "step", "variant": "simclr", "device": "H100", "rounds": 1}
    common |= {"encoder": "S/16", "batch": 256}
    rows = [
        {**common, "metric": "step time", "value": 0.05, "unit": "s"},
        {**common, "metric": "MFU", "value": 30.0, "unit": "%"},
        {**common, "metric": "lower bound of step time", "value": 0.03, "unit": "s"},
        {**common, "metric": "step time / that", "value": 1.67, "unit": ""},
        {**common, "metric": "step time / satmip", "value": 2.0, "unit": ""},
    ]
    header, _, line = [
        [cell.strip() for cell in text.split("|")]
        for text in page([], {"step-s16": rows}).splitlines()
        if text.startswith("| part") or "S/16" in text or text.startswith("| ---")
    ][-3:]
    cells = dict(zip(header, line, strict=True))
    assert (cells["ms"], cells["bound, ms"]) == ("50", "30")
    assert (cells["MFU, %"], cells["bound of MFU, %"]) == ("30.0", "50.0")
    assert cells["time / first"] == "2"


def test_launcher_without_time_names_every_part(tmp_path):
    result = subprocess.run(
        ["bash", REPOSITORY / "launch" / "gpu_report.sh", "--minutes", "0.001", "--out", tmp_path],
        env=os.environ | {"PYTHON": sys.executable},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    page = (tmp_path / "report.md").read_text()
    for part in plan(tmp_path, None):
        assert f"| {part.name} | not started" in page


@pytest.mark.slow
def test_tiny_parts_run_and_resume(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("XLA_FLAGS")  # the parts' batches are for one device
    parts = [part for part in plan(tmp_path, None, tiny=True) if part.name in ("knn", "kernels")]
    parts = [replace(part, limit=400) for part in parts]  # the machine may be busy
    Report(tmp_path, parts, 2000).run()
    text = (tmp_path / "report.md").read_text()
    assert text.count("| finished |") == 2
    assert "## Kernels of a step" in text
    assert "| scikit-learn | bank 200" in text
    capsys.readouterr()
    Report(tmp_path, parts, 600).run()
    assert capsys.readouterr().out.count("finished before") == 2


def test_the_device_is_named_without_an_accelerator(monkeypatch):
    monkeypatch.setattr(gpu_report, "QUERY", ("no-such-program",))
    described = gpu_report.device()
    assert described["card"]
    assert described["driver"] == ""
    assert "jax " in described["versions"]
