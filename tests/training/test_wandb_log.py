"""Metrics at Weights & Biases: a fake of its API for failures, the package itself for files."""

import importlib.util
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from satmip_jax.errors import ConfigError
from satmip_jax.training.metrics_log import MetricsLog, read_rows
from satmip_jax.training.wandb_log import check_wandb

INSTALLED = importlib.util.find_spec("wandb") is not None


class FakeWandb(SimpleNamespace):
    """What `WandbLog` calls; methods named in `broken` raise, as without a network."""

    def __init__(self, *broken):
        super().__init__(broken=broken, runs=[], rows=[], ends=[], url=None, Settings=dict)

    def init(self, **options):
        self._called("init")
        self.runs.append(options)
        return self

    def define_metric(self, name, step_metric=None):
        self._called("define_metric")

    def log(self, row):
        self._called("log")
        self.rows.append(row)

    def finish(self, exit_code):
        self._called("finish")
        self.ends.append(exit_code)

    def _called(self, name):
        if name in self.broken:
            raise ConnectionError("no route to host")


@pytest.fixture
def wandb(monkeypatch):
    def use(*broken):
        monkeypatch.setitem(sys.modules, "wandb", FakeWandb(*broken))
        return sys.modules["wandb"]

    return use


def start(workdir, steps, first=0):
    with MetricsLog(
        workdir, start=first, total=4, batch_size=1, wandb="team/satmip", config={"seed": 0}
    ) as log:
        for step in steps:
            log.write(step, {"loss": 0.5})


def test_later_starts_of_a_workdir_resume_the_same_run(wandb, tmp_path):
    fake = wandb()
    start(tmp_path, [1, 2])
    start(tmp_path, [2, 3], first=1)
    first, second = fake.runs
    assert first["id"] == second["id"] == json.loads((tmp_path / "wandb.json").read_text())["id"]
    assert (first["project"], first["entity"], first["name"]) == ("satmip", "team", tmp_path.name)
    assert first["config"] == {"seed": 0}
    assert [row["step"] for row in fake.rows] == [1, 2, 2, 3]
    assert fake.ends == [0, 0]


def test_a_failed_training_is_marked_as_failed(wandb, tmp_path):
    fake = wandb()
    log = MetricsLog(tmp_path, start=0, total=4, batch_size=1, wandb="satmip")
    with pytest.raises(ZeroDivisionError), log:
        raise ZeroDivisionError
    assert fake.ends == [1]
    assert fake.runs[0]["entity"] is None


@pytest.mark.parametrize("broken", ["init", "define_metric", "log", "finish"])
def test_failures_of_the_network_are_logged_once_and_cost_no_row(wandb, tmp_path, caplog, broken):
    wandb(broken)
    start(tmp_path, [1, 2, 3])
    assert [row["step"] for row in read_rows(tmp_path / "metrics.jsonl")] == [1, 2, 3]
    assert caplog.text.count("Weights & Biases failed (ConnectionError: no route to host)") == 1


def test_other_processes_send_nothing(wandb, tmp_path, monkeypatch):
    fake = wandb()
    monkeypatch.setattr("satmip_jax.training.metrics_log.is_main_process", lambda: False)
    start(tmp_path, [1])
    assert fake.runs == fake.rows == []
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_named_before_the_training(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    check_wandb("")
    with pytest.raises(ConfigError, match=r'pip install "satmip-jax\[wandb\]"'):
        check_wandb("satmip")


OFFLINE = """
import sys
from pathlib import Path
from satmip_jax.training.metrics_log import MetricsLog
for first in (0, 1):
    with MetricsLog(Path(sys.argv[1]), start=first, total=3, batch_size=1, wandb="satmip",
                    config={"method": {"name": "satmips"}}) as log:
        for step in range(first + 1, first + 3):
            log.write(step, {"loss": 12.25 + step})
"""


@pytest.mark.slow
@pytest.mark.skipif(not INSTALLED, reason="needs the extra wandb")
def test_the_package_writes_the_rows_to_files_offline(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE, str(tmp_path)],
        env=os.environ | {"WANDB_MODE": "offline"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Weights & Biases failed" not in done.stderr
    run_id = json.loads((tmp_path / "wandb.json").read_text())["id"]
    files = sorted((tmp_path / "wandb").glob(f"offline-run-*-{run_id}/run-{run_id}.wandb"))
    assert files
    written = b"".join(file.read_bytes() for file in files)
    assert all(f"{12.25 + step}".encode() in written for step in (1, 2, 3))
    assert b"satmips" in written


@pytest.mark.slow
@pytest.mark.skipif(not INSTALLED, reason="needs the extra wandb")
def test_without_a_network_the_rows_are_written_and_the_run_ends(tmp_path):
    script = "import satmip_jax.training.wandb_log as w; w.TIMEOUT = 3" + OFFLINE
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        env=os.environ
        | {
            "WANDB_API_KEY": "0" * 40,
            "WANDB_BASE_URL": "http://127.0.0.1:9",
            "WANDB_MODE": "online",
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Weights & Biases failed" in done.stderr
    assert [row["step"] for row in read_rows(tmp_path / "metrics.jsonl")] == [1, 2, 3]
