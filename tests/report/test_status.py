"""`satmip status`: runs that are copied, killed, held, of an older version, or unreadable."""

import fcntl
import json
import os
import shutil
import socket
import time

import pytest
from click.testing import CliRunner

from satmip_jax.cli import cli
from satmip_jax.data.bad_records import BadRecords
from satmip_jax.report.files import ReportError
from satmip_jax.report.page import write_report
from satmip_jax.report.status import find_runs, read_status
from satmip_jax.training.loop import train
from satmip_jax.training.metrics_log import read_rows


@pytest.fixture
def run(tiny_run, tmp_path):
    """A copy of a finished run, which tests change."""
    return shutil.copytree(tiny_run, tmp_path / "runs" / "tiny")


def unfinish(run, state="running", seconds=0.0):
    """Make a run of 4 steps that stands at step 2, with its last row some seconds ago."""
    shutil.rmtree(run / "checkpoints" / "4")
    rows = [row for row in read_rows(run / "metrics.jsonl") if row["step"] <= 2]
    rows = [row | {"time": time.time() - seconds} for row in rows]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    record = {"state": state, "time": time.time() - seconds, "reason": "NotFiniteError: step 3"}
    (run / "state.json").write_text(json.dumps(record))


def test_a_finished_run(run):
    status = read_status(run)
    last = [row for row in read_rows(run / "metrics.jsonl") if "loss" in row][-1]
    (knn,) = (row for row in read_rows(run / "metrics.jsonl") if "knn_image" in row)
    assert (status.state, status.step, status.planned) == ("finished", 4, 4)
    assert (status.loss, status.best, status.best_name) == (
        last["loss"],
        knn["knn_image"],
        "knn at 4",
    )
    assert status.last_sign == pytest.approx(knn["time"], abs=60)
    assert status.seconds_left is None


def test_times_are_those_of_the_metrics_not_of_files(run):
    for path in run.iterdir():
        os.utime(path, (0, 0))
    assert time.time() - read_status(run).last_sign < 3 * 3600


@pytest.mark.parametrize(("state", "reason"), [("stopped", True), ("failed", True)])
def test_a_recorded_end_is_shown(run, state, reason):
    unfinish(run, state)
    status = read_status(run)
    assert (status.state, status.step, status.planned) == (state, 2, 4)
    assert status.reason == "NotFiniteError: step 3"


def test_a_run_that_holds_its_lock_is_running_however_long_a_step_takes(run):
    unfinish(run, seconds=7200)
    rows = [row | {"images_per_second": 2.0} for row in read_rows(run / "metrics.jsonl")]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with (run / "train.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(f"process 1 on {socket.gethostname()}\n")
        file.flush()
        status = read_status(run)
        copied = read_status(shutil.copytree(run, run.parent / "copied"))
    assert status.state == "running"
    assert status.seconds_left == pytest.approx(2 * 16 / 2.0)  # steps x images / rate
    assert copied.state == "lost"  # nobody trains in the copy


@pytest.mark.parametrize(("seconds", "state"), [(30, "running"), (7200, "lost")])
def test_a_run_of_another_machine_is_judged_by_its_last_row(run, seconds, state):
    unfinish(run, seconds=seconds)
    (run / "train.lock").write_text("process 1 on another-host\n")
    assert read_status(run).state == state


def test_a_killed_run_is_lost(run):
    unfinish(run)
    (run / "train.lock").write_text(f"process 1 on {socket.gethostname()}\n")
    assert read_status(run).state == "lost"


def test_runs_of_versions_that_recorded_neither_state_nor_times(run):
    unfinish(run)
    (run / "state.json").unlink()
    rows = read_rows(run / "metrics.jsonl")
    for row in rows:
        del row["time"]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    os.utime(run / "metrics.jsonl", (1e9, 1e9))
    status = read_status(run)
    assert (status.state, status.last_sign) == ("stopped", 1e9)


def test_runs_are_found_in_folders_and_patterns_once(run, tmp_path):
    other = shutil.copytree(run, tmp_path / "runs" / "more" / "other")
    (tmp_path / "runs" / "notes").mkdir()
    assert find_runs([tmp_path, run]) == [other, run]
    assert find_runs([str(tmp_path / "runs" / "t*"), str(tmp_path / "*" / "more")]) == [run, other]
    with pytest.raises(ReportError, match="notes holds no run"):
        find_runs([tmp_path / "runs" / "notes"])
    with pytest.raises(ReportError, match=r"\*x holds no run"):
        find_runs([str(tmp_path / "*x")])


def test_the_command_shows_damaged_runs_beside_others(run):
    broken = shutil.copytree(run, run.parent / "broken")
    (broken / "config.json").write_text("{")
    done = CliRunner().invoke(cli, ["status", str(run.parent)], catch_exceptions=False)
    assert done.exit_code == 0
    words = done.output.split()
    assert {"finished", "unreadable", "4/4"} <= set(words)
    done = CliRunner().invoke(cli, ["status", "--json", str(run.parent)], catch_exceptions=False)
    first, second = json.loads(done.output)
    assert (first["state"], second["state"]) == ("unreadable", "finished")
    assert "config.json" in first["reason"]
    assert second["step"] == second["planned"] == 4


@pytest.mark.slow
def test_a_moved_workdir_needs_nothing_of_its_old_place(
    tiny_run, tiny_config, tiny_shards_dir, tmp_path
):
    config = tiny_config("satmips", "--config.eval.every=4")
    old, new = shutil.copytree(tiny_run, tmp_path / "old" / "run"), tmp_path / "new" / "run"
    BadRecords("train", path=old / "bad_records.json").add([(63, "cannot be decoded")])
    for path in old.rglob("*"):
        if path.is_file() and path.name != "commit_success.txt":  # only its existence counts
            assert str(tiny_run).encode() not in path.read_bytes(), path
    new.parent.mkdir()
    old.rename(new)
    assert read_status(new).state == "finished"
    page = tmp_path / "report.html"
    write_report([new], page)
    assert "SatMIPS" in page.read_text()
    command = ["evaluate", "--workdir", str(new), "--data", str(tiny_shards_dir)]
    command += ["--protocols", "knn5", "--features", "image", "--block", "0"]
    done = CliRunner().invoke(cli, command, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    scores = (new / "evaluation.json").read_bytes()
    shutil.rmtree(new / "checkpoints" / "4")
    state = train(config, new)
    assert int(state.step) == 4
    assert read_rows(new / "environment.jsonl")[-1]["step"] == 2  # resumed
    assert (new / "evaluation.json").read_bytes() == scores
    reasons = BadRecords("train", path=new / "bad_records.json").reasons
    assert reasons == {63: "cannot be decoded"}
    assert not old.exists()
