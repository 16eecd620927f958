"""`satmip doctor --accelerator` compiles a small step for devices that are not here.

In a process of its own: the tests' JAX leaves out most optimizations.
"""

import importlib.util
import json
import os
import subprocess
import sys

import pytest

from tests.conftest import TINY

KEYS = {
    "accelerator",
    "topology",
    "fits",
    "temporaries_gib",
    "mfu_bound",
    "collectives",
    "operations",
    "parts_ms",
    "notes",
    "problems",
}


def needs(module, extra):
    installed = importlib.util.find_spec(module) is not None
    return pytest.mark.skipif(not installed, reason=f"needs the extra {extra}")


def doctor(*words):
    """Run the command; its JAX has the devices that it chooses itself."""
    command = [sys.executable, "-m", "satmip_jax.cli", "doctor", "--config"]
    command += ["configs/eurosat.py:satmips,cpu", *TINY, "--config.data.dir="]
    command += ["--config.dtype=bfloat16", *words]
    env = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=600, check=False, env=env
    )


def compiled(tmp_path, *words):
    """The JSON and the text of the program."""
    json_file, program = tmp_path / "step.json", tmp_path / "step.txt"
    done = doctor("--json", str(json_file), "--save-program", str(program), *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no problems found" in done.stdout
    record = json.loads(json_file.read_text())
    assert record.keys() >= KEYS
    assert record["fits"]
    assert record["problems"] == []
    assert {"views", "image encoder forward", "image encoder backward", "heads", "optimizer"} <= (
        record["parts_ms"].keys()
    )
    return record, program.read_text()


def assert_gradients_cross_in_float32(record):
    sums = [c for c in record["collectives"] if c["kind"] == "all-reduce"]
    parameters = sum(c["bytes"] for c in sums if c["op_name"] == "" or c["part"] != "losses")
    assert parameters > 0
    for transfer in sums:
        assert transfer["bytes_by_dtype"].keys() == {"f32"}, transfer


@pytest.mark.slow
@needs("jax_cuda13_plugin", "compile-gpu")
def test_a_step_for_two_h100(tmp_path):
    record, program = compiled(tmp_path, "--accelerator", "h100", "--topology", "2")
    assert (record["accelerator"], record["devices"]) == ("h100", 2)
    assert "__cudnn$fmhaSoftmax" in program
    assert "__cudnn$fmhaSoftmaxBackward" in program
    assert record["step_bound_ms"] > 0
    assert 0 < record["mfu_bound"] < 1
    assert_gradients_cross_in_float32(record)


@pytest.mark.slow
@needs("jax_cuda13_plugin", "compile-gpu")
def test_tiles_are_scored_while_the_ring_sends(tmp_path):
    options = ["--config.parallel.exchange=ring", "--config.optimizer.batch_size=32"]
    record, _ = compiled(tmp_path, "--accelerator", "h100", "--topology", "4", *options)
    hops = [c for c in record["collectives"] if c["kind"] == "collective-permute"]
    within_a_turn = [hop for hop in hops if hop["times"] == 4]
    assert len(within_a_turn) >= 4  # SimCLR's and the pairs', forward and backward
    assert all(hop["compute_meanwhile_us"] > 0 for hop in within_a_turn), hops


@pytest.mark.slow
@needs("libtpu", "compile-tpu")
def test_a_step_for_a_slice_of_v5e(tmp_path):
    record, program = compiled(tmp_path, "--accelerator", "v5e", "--topology", "2x2")
    assert program.count('custom_call_target="tpu_custom_call"') >= 2  # attention and its gradient
    assert (record["accelerator"], record["topology"], record["devices"]) == ("v5e", "2x2", 4)
    assert record["estimated_cycles"] > 0
    assert "step_bound_ms" not in record
    assert_gradients_cross_in_float32(record)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--accelerator", "h100", "--devices", "8"), "--accelerator replaces --devices"),
        (("--topology", "8"), "--topology, --slices, --json and --save-program need --accelerator"),
    ],
)
def test_options_that_exclude_each_other(words, message):
    done = doctor(*words)
    assert done.returncode == 2
    assert message in done.stderr
