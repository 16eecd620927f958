"""Seconds that a command takes to start, and a training to its first step; in fresh processes."""

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
from satmip_jax.bench.timing import Measurement, in_turn, spread
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
    "--config.optimizer.images=1600000",  # it is stopped long before
    "--config.log_every=1",
    "--config.eval.every=0",
    "--config.data.in_memory=True",
)
PATIENCE = 600.0  # seconds for a first step


class StartupError(SatmipError, RuntimeError):
    """A command that was to be timed failed; the message is what it said."""


def bench(rounds: int, *, training: bool) -> list[Measurement]:
    """Measure commands and, with `training`, small trainings with and without compiled programs.

    Each command runs once before, uncounted, so that its files are in the system's cache.
    """
    functions = {name: partial(_run, command) for name, command in COMMANDS.items()}
    found = [
        Measurement("startup", name, "whole command", unit="s", **spread(seconds))
        for name, seconds in in_turn(functions, rounds).items()
    ]
    return found + (_trainings(rounds) if training else [])


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
                if cache == "filled":  # a resumed run compiles the same programs
                    seconds.setdefault("resumed, filled cache", []).append(start())
    return [
        Measurement("startup", f"training, {name}", "to first step", unit="s", **spread(values))
        for name, values in seconds.items()
    ]


def first_step(shards: str | os.PathLike[str], workdir: Path, cache: Path) -> float:
    """Start or resume a small training, wait for its next step, have it save and end.

    Args:
        shards: prepared data of 32 pixels.
        workdir: of the run.
        cache: folder of compiled programs.

    Returns:
        Seconds from the start of the process to the first row of metrics.
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
                if process.poll() is not None or time.perf_counter() - start > PATIENCE:
                    log.seek(0)
                    raise StartupError(f"no first step of {workdir.name}: {log.read()[-2000:]}")
                time.sleep(0.01)
            seconds = time.perf_counter() - start
            process.terminate()  # it saves, to be resumed
            process.wait(PATIENCE)
        finally:
            process.kill()
    return seconds


def _rows(workdir: Path) -> bytes:
    """The log of a run; a resumed one first takes out what came after its checkpoint."""
    path: Path = workdir / METRICS_FILE
    return path.read_bytes() if path.is_file() else b""
