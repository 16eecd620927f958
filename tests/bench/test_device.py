"""What the benchmarks of views, kNN and start-up measure, and the lines that they write."""

import io
import json

import numpy as np
import pytest
from click.testing import CliRunner
from rich.console import Console

from satmip_jax.bench import augment, knn, startup, timing, torch_loader
from satmip_jax.bench.cli import bench
from satmip_jax.bench.timing import Measurement


def test_views_are_measured_by_operation(monkeypatch):
    monkeypatch.setattr(torch_loader, "installed", lambda: False)
    found = augment.bench([2], stored=32, size=20, rounds=1)
    assert [m.variant for m in found] == ["crop", "crop, jitter", "crop, blur", "all"]
    assert {m.unit for m in found} == {"images/s"}
    assert found[0].facts == {"batch": 2, "stored": 32, "size": 20}


def test_classifiers_agree():
    bank, labels, queries = knn.features(500, 60, 24)
    found = {name: np.asarray(f()) for name, f in knn.classifiers(bank, labels, queries).items()}
    assert found.keys() == {"satmip", "numpy", "scikit-learn"}
    for answers in found.values():
        np.testing.assert_array_equal(answers, found["numpy"])
    assert len(np.unique(found["numpy"])) > knn.CLASSES / 2


def test_lines_of_the_command(tmp_path):
    out = tmp_path / "lines.jsonl"
    options = ["--banks", "100", "--queries", "20", "--widths", "8,16", "--rounds", "1"]
    result = CliRunner().invoke(bench, ["knn", *options, "--out", str(out)])
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    rates = [row for row in rows if row["metric"] == "rate"]
    assert len(rates) == 6
    assert {row["width"] for row in rates} == {8, 16}
    assert all(row["bank"] == 100 and row["queries"] == 20 for row in rates)
    assert all(row["unit"] == "queries/s" and row["value"] > 0 for row in rates)
    assert all(row["value"] == 0 for row in rows if row["metric"] == "other answers")


def test_what_was_measured_before_a_stop_is_kept(tmp_path):
    def stopped():
        yield Measurement("growth", "batch", "step", 0.125, "s", facts={"at": 8})
        raise KeyboardInterrupt

    out, shown = tmp_path / "lines.jsonl", Console(file=io.StringIO(), width=200)
    with pytest.raises(KeyboardInterrupt):
        timing.write(stopped(), out, shown)
    (line,) = out.read_text().splitlines()
    assert json.loads(line).items() >= {"variant": "batch", "at": 8, "value": 0.125}.items()
    assert "0.125" in shown.file.getvalue()


def test_commands_are_run_in_processes_of_their_own(monkeypatch):
    monkeypatch.setattr(startup, "COMMANDS", {"python": ("-c", "pass")})
    (found,) = startup.bench(2, training=False)
    assert (found.variant, found.metric, found.unit, found.rounds) == (
        "python",
        "whole command",
        "s",
        2,
    )
    monkeypatch.setattr(startup, "COMMANDS", {"broken": ("-c", "raise SystemExit('no luck')")})
    with pytest.raises(startup.StartupError, match="no luck"):
        startup.bench(1, training=False)


@pytest.mark.slow
def test_first_step_fills_the_cache_and_is_resumed(tiny_shards_dir, tmp_path, monkeypatch):
    smaller = ("--config.image.encoder=mu/8", "--config.metadata.depth=1")
    monkeypatch.setattr(startup, "OPTIONS", (*startup.OPTIONS, *smaller))
    monkeypatch.setenv("XLA_FLAGS", "")  # one device
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    for _ in range(2):
        startup.first_step(tiny_shards_dir, tmp_path / "run", tmp_path / "cache")
    assert any((tmp_path / "cache").iterdir())
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["step"] for row in rows] == list(range(len(rows)))  # none twice: resumed
    assert len(rows) >= 2
