"""The study of time and memory."""

from dataclasses import replace

import pytest

from satmip_jax.studies import efficiency
from satmip_jax.studies.base import Plan
from satmip_jax.studies.registry import STUDIES
from satmip_jax.studies.runner import run_study
from tests.studies.toy import count_calls, rows_of

TWO = replace(
    efficiency.STUDY,
    name="two",
    plan=lambda *args: Plan(efficiency.STUDY.plan(*args).variants[:2]),
)


@pytest.mark.slow
@pytest.mark.usefixtures("one_device")
def test_times_and_memory_are_those_of_compiled_steps(tiny_config, tmp_path, monkeypatch, quiet):
    monkeypatch.setattr(efficiency, "ROUNDS", 2)
    monkeypatch.setattr(efficiency, "STEPS", 2)
    config = tiny_config("satmips", "--config.optimizer.batch_size=64")
    monkeypatch.setitem(STUDIES, "two", f"{__name__}:TWO")
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
