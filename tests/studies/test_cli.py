"""The `satmip study` command."""

from click.testing import CliRunner

from satmip_jax.cli import cli
from satmip_jax.objectives import METHODS
from satmip_jax.studies import runner
from tests.conftest import REPOSITORY


def test_command_passes_all_arguments_on(tiny_shards_dir, monkeypatch):
    calls = []
    monkeypatch.setattr(runner, "run_study", lambda *args, **kwargs: calls.append((args, kwargs)))
    config = f"{REPOSITORY / 'configs' / 'eurosat.py'}:satmip,cpu"
    words = ["study", "fields", "--config", config, "--out", "x", "--seeds", "2"]
    words += ["--eval-data", "a", "--eval-data", "b", "--config.seed=7"]
    assert CliRunner().invoke(cli, words, catch_exceptions=False).exit_code == 0
    (((name, given, out), options),) = calls
    assert (name, out, given.seed, given.method.name) == ("fields", "x", 7, "satmip")
    assert {m: (c.seed, c.method.name) for m, c in options.pop("method_configs").items()} == {
        method: (7, method) for method in METHODS
    }
    assert options == {"seeds": 2, "eval_data": ("a", "b"), "options": {}}
    refused = CliRunner().invoke(cli, ["study", "field", "--config", config, "--out", "x"])
    assert refused.exit_code == 2
    assert all(name in refused.output for name in ("fields", "convergence", "methods"))


def test_options_of_a_study_are_flags_of_its_command(monkeypatch):
    calls = []
    monkeypatch.setattr(runner, "run_study", lambda *args, **kwargs: calls.append(kwargs))
    words = ["--config", f"{REPOSITORY / 'configs' / 'eurosat.py'}:satmip,cpu", "--out", "x"]
    sizes = ["--batch-sizes", "8,16", "--device-memory", "2"]
    CliRunner().invoke(cli, ["study", "batch-size", *words, *sizes], catch_exceptions=False)
    expected = {"batch_sizes": "8,16", "device_memory": 2.0}
    assert calls[0]["options"] == expected
    for name, shown in (("batch-size", True), ("fields", False)):
        printed = CliRunner().invoke(cli, ["study", name, "--help"]).output
        assert ("--batch-sizes" in printed) == shown
        assert "--eval-data" in printed
    other = CliRunner().invoke(cli, ["study", "fields", *words, *sizes])
    assert "unknown option 'batch-sizes'" in str(other.exception)
