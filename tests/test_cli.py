"""The `satmip` command as users run it."""

import json
import os
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY, TINY


def satmip(*arguments, code=0):
    """Run the command in another process; return its output."""
    run = subprocess.run(
        [sys.executable, "-m", "satmip_jax.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env=os.environ | {"XLA_FLAGS": ""},  # one device, as users have
        timeout=300,
        check=False,
    )
    assert run.returncode == code, run.stdout + run.stderr
    return run.stdout + run.stderr


def test_help_imports_nothing_heavy():
    code = (
        "import sys, satmip_jax.cli as c\n"
        "from click.testing import CliRunner\n"
        "assert CliRunner().invoke(c.cli, ['--help']).exit_code == 0\n"
        "heavy = {'jax', 'numpy', 'flax', 'grain', 'tensorflow_datasets', 'cv2', 'matplotlib'}\n"
        "assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "--config", "nope.py", "--workdir", "x"), "no config file 'nope.py'"),
        (("prepare", "eurosat", "--source", "nowhere", "--out", "x"), "no file or folder"),
        (("evaluate", "--workdir", "nowhere", "--data", "x"), "no prepared data in x"),
        (
            ("evaluate", "--workdir", "x", "--data", "x", "--fields", "Weather"),
            "unknown field or group 'Weather'",
        ),
        (("train", "--config", "configs/eurosat.py", "--workdir", "README.md/x"), "README.md"),
    ],
)
def test_errors_are_one_message(arguments, message):
    printed = satmip(*arguments, code=1)
    assert message in printed
    assert "Traceback" not in printed


INTERRUPT = """
import importlib, sys
module, name, *arguments = sys.argv[1:]
def interrupt(*_, **__):
    raise KeyboardInterrupt
setattr(importlib.import_module(module), name, interrupt)
from satmip_jax import cli
sys.argv = ["satmip", *arguments]
cli.main()
"""


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (
            "satmip_jax.prepare.run prepare",
            "prepare synthetic --source s --out x --train 6 --val 3",
            "interrupted. Finished shards in x are kept: the same command resumes",
        ),
        (
            "satmip_jax.quickstart synthetic",
            "quickstart --out x",
            "interrupted. What is finished in x is kept: the same command resumes",
        ),
        (
            "satmip_jax.studies.runner run_study",
            f"study methods --config {REPOSITORY}/configs/eurosat.py --out x",
            "interrupted. Runs and scores in x are kept: the same command resumes",
        ),
        (
            "satmip_jax.evaluation.evaluate evaluate",
            "evaluate --workdir x --data x",
            "interrupted: give the same command again",
        ),
    ],
)
def test_ctrl_c_is_one_message(function, arguments, message, tmp_path):
    run = subprocess.run(
        [sys.executable, "-c", INTERRUPT, *function.split(), *arguments.split()],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.fspath(REPOSITORY)},
        check=False,
    )
    assert run.returncode == 130, run.stderr
    assert run.stderr.splitlines()[-1] == f"satmip: {message}"
    assert "Traceback" not in run.stderr
    assert "Aborted" not in run.stderr


@pytest.mark.slow
def test_from_nothing_to_scores(tmp_path):
    """prepare -> train -> evaluate, longer, and from its weights: with commands of the README."""
    shards, run = tmp_path / "shards", tmp_path / "run"
    printed = satmip(
        *("prepare", "synthetic", "--source", tmp_path / "scenes", "--out", shards),
        *("--image-size", 32, "--limit", 32, "--workers", 2, "--size", 48),
        *("--train", 40, "--val", 24),
    )
    assert "32" in printed
    train = ("train", "--config", "configs/eurosat.py:satmips,cpu", "--workdir", run, *TINY)
    satmip(*train, f"--config.data.dir={shards}")
    quick = ("--workdir", run, "--data", shards, "--protocols", "knn5,linear", "--block", 0)
    printed = satmip("evaluate", *quick, "--features", "image,both")
    rows = json.loads((run / "evaluation.json").read_text())
    assert {row["features"] for row in rows} == {"image", "both"}
    keys = {"dataset", "split", "model", "features", "protocol", "metric", "value", "n"}
    keys |= {"low", "high", "data", "step", "planned", "majority", "note", "by_class"}
    assert all(row.keys() == keys for row in rows)
    satmip(*train, f"--config.data.dir={shards}", "--config.optimizer.images=80", "--extend")
    assert (run / "checkpoints" / "5").is_dir()
    further = tmp_path / "further"
    train = ("train", "--config", "configs/eurosat.py:satmips,cpu", "--workdir", further, *TINY)
    satmip(*train, f"--config.data.dir={shards}", "--init", run)
    assert json.loads((further / "initialization.json").read_text())["family"] == "satmip"
    satmip("evaluate", *quick, "--baseline", "colour")
    assert len(json.loads((run / "evaluation.json").read_text())) == len(rows) + 4
