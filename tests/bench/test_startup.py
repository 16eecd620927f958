"""Benchmark of start-up times."""

import json

import pytest

from satmip_jax.bench import startup


def test_commands_run_in_fresh_processes(monkeypatch):
    monkeypatch.setattr(startup, "COMMANDS", {"python": ("-c", "pass")})
    (measurement,) = startup.bench(2, training=False)
    assert (measurement.variant, measurement.metric, measurement.unit, measurement.rounds) == (
        "python",
        "run time",
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
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))  # resumed: no step twice
    assert len(rows) >= 2
