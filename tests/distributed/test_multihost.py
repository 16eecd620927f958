"""Runs of several processes: same batches and losses as one process, and they end together."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from satmip_jax.data.loaders import InMemoryBatches
from satmip_jax.distributed import multihost
from satmip_jax.distributed.multihost import ProcessError, find_launcher
from satmip_jax.distributed.sharding import make_mesh
from satmip_jax.objectives import EXCHANGES
from tests.conftest import REPOSITORY, TINY, load_state
from tests.losses.test_contrastive import assert_same, naive_info_nce, naive_nt_xent, naive_sigmoid

HEARTBEAT = 10  # seconds


def launch(*arguments: str, cache: Path, processes: int = 2) -> list[subprocess.Popen]:
    """Start processes, of 8 devices in all, with the same arguments except their number."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{free.getsockname()[1]}"
    environment = os.environ | {
        "PYTHONPATH": str(REPOSITORY),
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={8 // processes}",
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    }
    return [
        subprocess.Popen(
            [
                sys.executable,
                *[part.format(coordinator=coordinator, process=process) for part in arguments],
            ],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for process in range(processes)
    ]


def train_two(workdir: Path, data: Path, cache: Path) -> list[subprocess.Popen]:
    """Start the run of the fixture `tiny_run` as two processes."""
    return launch(
        *("-m", "satmip_jax.cli", "train"),
        *("--config", f"{REPOSITORY}/configs/eurosat.py:satmips,cpu", "--workdir", str(workdir)),
        *("--coordinator", "{coordinator}", "--processes", "2", "--process", "{process}"),
        *TINY,
        "--config.eval.every=4",
        f"--config.data.dir={data}",
        cache=cache,
    )


def finish(pair: list[subprocess.Popen], timeout: float = 900) -> list[str]:
    """Wait for all and return their output, without the lines of XLA's CPU collectives."""
    return [without_gloo(run.communicate(timeout=timeout)[0]) for run in pair]


def without_gloo(text: str) -> str:
    """Return `text` without the lines of Gloo.

    Threads of the collectives write them in pieces and at the same time: a line may contain parts
    of two of them, the next one the rest. So pieces are removed, with the numbers beside them.
    """
    pieces = (
        r"\[Gloo\] Rank | is connected to | peer ranks\. "
        r"|Expected number of connected peer ranks is : "
    )
    return re.sub(rf"\d*(?:{pieces})\d*\n*", "", text)


def metrics(workdir: Path) -> list[dict]:
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [
        {k: v for k, v in row.items() if k not in ("images_per_second", "time")} for row in rows
    ]


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def pair_run(tiny_shards_dir, tmp_path_factory, cache) -> tuple[Path, list[str]]:
    """Workdir of an undisturbed run of two processes, and their output."""
    workdir = tmp_path_factory.mktemp("pair")
    pair = train_two(workdir, tiny_shards_dir, cache)
    printed = finish(pair)
    assert [run.returncode for run in pair] == [0, 0], printed
    return workdir, printed


@pytest.mark.slow
def test_two_processes_train_as_one(pair_run, tiny_run):
    """Against one process of 8 devices: losses, kNN scores, moments and parameters."""
    workdir, _ = pair_run
    for two, one in zip(metrics(workdir), metrics(tiny_run), strict=True):
        assert two == pytest.approx(one, rel=1e-5)
    two, one = load_state(workdir), load_state(tiny_run)

    def compare(path, a, b):
        if path[-1].key == "bias" and path[-2].key == "qkv":
            # The keys' bias shifts all logits of a softmax alike: its gradient is rounding, which
            # Adam divides by its own size. The rest of this leaf counts.
            a, b = (np.delete(x.reshape(-1, 3, x.shape[-1] // 3), 1, axis=1) for x in (a, b))
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * max(np.abs(b).max(), 1e-3))

    jax.tree_util.tree_map_with_path(compare, two.params, one.params)
    jax.tree_util.tree_map_with_path(compare, two.opt_state[0].mu, one.opt_state[0].mu)


@pytest.mark.slow
def test_only_process_0_writes(pair_run):
    workdir, printed = pair_run
    assert "8 cpu device(s) of 2 process(es)" in printed[0]
    assert "images/s" in printed[0]
    assert printed[1] == ""
    assert [row["step"] for row in metrics(workdir)] == [1, 2, 3, 4, 4]
    assert len(list((workdir / "tensorboard").iterdir())) == 1


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads which signals are caught")
def test_sigterm_to_one_stops_both_and_the_run_resumes_bit_for_bit(
    pair_run, tiny_shards_dir, cache, tmp_path
):
    pair = train_two(tmp_path, tiny_shards_dir, cache)
    seen = ""
    while "device(s)" not in seen:  # then both have joined, and the first step is yet to compile
        seen = pair[0].stdout.readline()
        assert seen, finish(pair)
    while not caught(pair[1].pid) >> (signal.SIGTERM - 1) & 1:
        assert pair[1].poll() is None, finish(pair)
        time.sleep(0.01)
    pair[1].send_signal(signal.SIGTERM)
    printed = finish(pair)
    assert [run.returncode for run in pair] == [130, 130], printed
    for text in printed:
        assert "stopped by SIGTERM to process 1 and saved at step 3 of 4" in text
    assert max(int(p.name) for p in (tmp_path / "checkpoints").iterdir()) == 3

    pair = train_two(tmp_path, tiny_shards_dir, cache)
    printed = finish(pair)
    assert [run.returncode for run in pair] == [0, 0], printed
    assert "resumed at step 3" in printed[0]
    jax.tree.map(np.testing.assert_array_equal, load_state(tmp_path), load_state(pair_run[0]))
    assert metrics(tmp_path) == metrics(pair_run[0])


def caught(pid: int) -> int:
    """Return the mask of the signals that a process handles."""
    (line,) = re.findall(r"SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text())
    return int(line, 16)


@pytest.mark.slow
def test_batches_and_losses_are_those_of_one_process_and_a_killed_one_is_reported(
    tiny_shards, tiny_shards_dir, cache, tmp_path
):
    pair = launch(
        *(str(REPOSITORY / "tests" / "distributed" / "worker.py"), "{coordinator}", "{process}"),
        *(str(HEARTBEAT), str(tiny_shards_dir), str(tmp_path)),
        cache=cache,
    )
    while not all((tmp_path / f"{process}.npz").exists() for process in range(2)):
        assert all(run.poll() is None for run in pair), finish(pair)
        time.sleep(0.05)
    pair[1].kill()
    printed = finish(pair, timeout=90)  # JAX's own default would be 100 s
    assert pair[0].returncode not in (0, 130)
    assert "satmip: process 0 of 2 on" in printed[0]
    assert "another process died" in printed[0]
    assert "Start the same command on all hosts again" in printed[0]

    both = [np.load(tmp_path / f"{process}.npz") for process in range(2)]
    mesh = make_mesh()
    with InMemoryBatches(tiny_shards, mesh, batch_size=16, seed=3, start=2) as batches:
        for step, batch in zip(range(3), batches, strict=False):
            for loader in ("TrainBatches", "InMemoryBatches"):
                for name in ("index", "image", "label"):
                    halves = [half[f"{loader}.{name}"][step] for half in both]
                    np.testing.assert_array_equal(np.concatenate(halves), batch[name])
    a, b = map(jnp.asarray, np.random.default_rng(0).normal(size=(2, 16, 12)).astype(np.float32))
    scale, bias = jnp.float32(10.0), jnp.float32(-3.0)
    for name, naive in {
        "info_nce": lambda a: naive_info_nce(a, b, scale),
        "nt_xent": lambda a: naive_nt_xent(a, b, 0.1),
        "sigmoid": lambda a: naive_sigmoid(a, b, scale, bias),
    }.items():
        for exchange in EXCHANGES:
            values = [float(half[f"{name}.{exchange}.value"]) for half in both]
            gradient = np.concatenate([half[f"{name}.{exchange}.gradient"] for half in both])
            assert values[0] == values[1]
            assert_same((values[0], gradient), jax.jit(jax.value_and_grad(naive))(a))

    first, second = (half["InMemoryBatches.read"].tolist() for half in both)
    assert sorted(first + second) == list(range(64))  # no record is read by both
    assert len(first) == len(second) == 32


def test_a_single_machine_and_single_processes_run_alone():
    """Without JAX's detection, which would wait, fail or use one device, and without an error."""
    assert find_launcher({"HOME": "/root"}) is None  # only JAX can tell, at once
    slurm = {"SLURM_STEP_NODELIST": "node[1-2]", "SLURM_PROCID": "0"}
    assert find_launcher(slurm | {"SLURM_NTASKS": "2"}) == "SLURM"
    assert find_launcher(slurm | {"SLURM_NTASKS": "1"}) == "none"  # srun --pty on one node
    assert find_launcher({"SLURM_NTASKS": "2", "SLURM_PROCID": "0"}) is None  # sbatch, no srun
    assert find_launcher({"OMPI_COMM_WORLD_SIZE": "4"}) == "Open MPI"
    assert find_launcher({"OMPI_COMM_WORLD_SIZE": "1"}) == "none"
    pod = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}
    assert find_launcher(pod) == "none"
    assert find_launcher(pod | {"JOB_COMPLETION_INDEX": "0"}) == "Kubernetes"
    assert find_launcher(pod | {"TPU_WORKER_HOSTNAMES": "a,b"}) is None  # JAX knows GKE's TPUs


def test_start_without_launcher_or_with_one_process_does_nothing(monkeypatch):
    for name in list(os.environ):
        if name.startswith(("SLURM_", "OMPI_", "KUBERNETES_", "TPU_")):
            monkeypatch.delenv(name)
    code = """if True:
        from satmip_jax.distributed import multihost
        multihost.start()
        multihost.start(processes=1)
        import jax
        assert not jax.distributed.is_initialized()
        assert jax.process_count() == 1
        print("alone")"""
    # it waits for nobody, as JAX would for 300 s
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=200
    )
    assert result.stdout == "alone\n", result.stderr


def test_processes_that_cannot_be_found_are_refused(monkeypatch):
    """Rather than each of them training alone into one workdir."""
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")  # Open MPI 5, which JAX does not see
    code = "from satmip_jax.distributed import multihost; multihost.start()"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "Open MPI started several processes, but JAX cannot find them" in result.stderr
    assert "did not reach the others" not in result.stderr  # the exit message was cleared


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("a:1", None, None), "give all of --coordinator"),
        ((None, 2, 0), "give all of --coordinator"),
        (("a:1", 2, 2), "--process is 2: use 0 to 1"),
        (("node1", 2, 0), "give HOST:PORT"),
    ],
)
def test_incomplete_flags_are_refused(flags, message):
    with pytest.raises(ProcessError, match=message):
        multihost.start(*flags)
