"""Start-up time of commands, and time to the first training step, in fresh processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from satmip_jax.bench import synthetic_data
from satmip_jax.bench.timing import Measurement, over_rounds, time_in_turn
from satmip_jax.config.loading import config_folder
from satmip_jax.errors import SatmipError
from satmip_jax.training.metrics_log import METRICS_FILE

SATMIP = ("-m", "satmip_jax.cli")
COMMANDS: Mapping[str, tuple[str, ...]] = {
    "python": ("-c", "pass"),
    "import satmip_jax": ("-c", "import satmip_jax"),
    "import satmip_jax.training.loop": ("-c", "import satmip_jax.training.loop"),
    "satmip --help": (*SATMIP, "--help"),
    "satmip train --help": (*SATMIP, "train", "--help"),
}
OPTIONS = (
    "--config.image.size=32",
    "--config.image.encoder=nano/8",
    "--config.optimizer.batch_size=16",
    "--config.optimizer.images=1600000",  # stopped long before
    "--config.log_every=1",
    "--config.eval.every=0",
    "--config.data.in_memory=True",
)
TIMEOUT = 600.0  # seconds to a first step


class StartupError(SatmipError, RuntimeError):
    """A timed command failed; the message holds its output."""


def bench(rounds: int, *, training: bool) -> list[Measurement]:
    """Measure commands, and optionally small trainings with an empty and a filled compile cache.

    Each command runs once before, untimed, so that its files are in the system's cache.

    Args:
        rounds: rounds of timing.
        training: measure the time to the first training step as well.

    Raises:
        StartupError: a command failed, or no step was made in time.
    """
    functions = {name: partial(_run, command) for name, command in COMMANDS.items()}
    measurements = [
        Measurement("startup", name, "run time", unit="s", **over_rounds(seconds))
        for name, seconds in time_in_turn(functions, rounds).items()
    ]
    return measurements + (_trainings(rounds) if training else [])


def _run(command: tuple[str, ...]) -> None:
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise StartupError(f"{' '.join(command)} failed: {done.stderr[-2000:]}")


def _trainings(rounds: int) -> list[Measurement]:
    seconds: dict[str, list[float]] = {}
    with TemporaryDirectory() as folder:
        shards = synthetic_data.draw_shards(Path(folder), 64, 32).data_dir
        for number in range(rounds):
            for cache in ("empty", "filled"):
                workdir = Path(folder) / f"{number}-{cache}"
                start = partial(first_step, shards, workdir, Path(folder) / f"cache-{number}")
                seconds.setdefault(f"fresh, {cache} cache", []).append(start())
                if cache == "filled":  # resume compiles the same programs
                    seconds.setdefault("resumed, filled cache", []).append(start())
    return [
        Measurement(
            "startup", f"training, {name}", "time to first step", unit="s", **over_rounds(values)
        )
        for name, values in seconds.items()
    ]


def first_step(shards: str | os.PathLike[str], workdir: Path, cache: Path) -> float:
    """Start or resume a small training, wait for its next step, then stop it.

    The training saves a checkpoint when it is stopped.

    Args:
        shards: prepared data of 32 pixels.
        workdir: folder of the run.
        cache: folder of compiled programs.

    Returns:
        Seconds from the start of the process to its first row of metrics.

    Raises:
        StartupError: the training failed, or took longer than `TIMEOUT` to a step.
    """
    config = config_folder() / "eurosat.py"
    command = [sys.executable, *SATMIP, "train", "--config", f"{config}:satmips,cpu"]
    command += ["--workdir", str(workdir), f"--config.data.dir={shards}", *OPTIONS]
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(cache)}
    rows = _rows(workdir)
    start = time.perf_counter()
    with (workdir.parent / "log").open("w+") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            while _rows(workdir) == rows:
                if process.poll() is not None or time.perf_counter() - start > TIMEOUT:
                    log.seek(0)
                    raise StartupError(f"no first step of {workdir.name}: {log.read()[-2000:]}")
                time.sleep(0.01)
            seconds = time.perf_counter() - start
            process.terminate()  # saves a checkpoint
            process.wait(TIMEOUT)
        finally:
            process.kill()
    return seconds


def _rows(workdir: Path) -> bytes:
    """Return the log of a run; a resumed run first removes rows after its checkpoint."""
    path: Path = workdir / METRICS_FILE
    return path.read_bytes() if path.is_file() else b""
