"""The log of a run: metrics as JSON Lines and TensorBoard, what computed them, a progress bar."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from satmip_jax import parallel
from satmip_jax.environment import environment

METRICS_FILE = "metrics.jsonl"
STARTS_FILE = "environment.jsonl"


class Logbook:
    """Writes `metrics.jsonl` and TensorBoard events in a workdir, and shows a progress bar.

    Every start adds a row to `environment.jsonl`: the step it starts at, the devices and the
    versions of packages. Other processes than the first write and show nothing. Rows of steps from
    `start` on, left by a run that was cut off after its last checkpoint, are taken out first.
    """

    def __init__(self, workdir: Path, *, start: int, total: int, batch_size: int) -> None:
        self.main = parallel.is_main_process()
        self.batch_size = batch_size
        self.bar = tqdm(
            total=total * batch_size,
            initial=start * batch_size,
            unit=" images",
            unit_scale=True,
            desc="training",
            disable=not self.main,
            mininterval=1.0,
        )
        if not self.main:
            return
        from tensorboardX import SummaryWriter

        for name in (METRICS_FILE, STARTS_FILE):
            keep_rows_before(workdir / name, start)
        with (workdir / STARTS_FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": start, **environment()}) + "\n")
        self.file = (workdir / METRICS_FILE).open("a", encoding="utf-8")
        self.tensorboard = SummaryWriter(str(workdir / "tensorboard"), purge_step=start)

    def advance(self, steps: int) -> None:
        """Move the progress bar."""
        self.bar.update(steps * self.batch_size)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Write one row; non-finite values become null, which JSON can hold."""
        if "loss" in values:
            self.bar.set_postfix(loss=f"{values['loss']:.3f}", refresh=False)
        if not self.main:
            return
        finite = {k: v if abs(v) < float("inf") else None for k, v in values.items()}
        self.file.write(json.dumps({"step": step, **finite}) + "\n")
        self.file.flush()
        for name, value in values.items():
            self.tensorboard.add_scalar(name, value, step)

    def say(self, message: str) -> None:
        """Print a line without breaking the progress bar."""
        if self.main:
            self.bar.write(message)

    def close(self) -> None:
        self.bar.close()
        if self.main:
            self.file.close()
            self.tensorboard.close()


def keep_rows_before(path: Path, step: int) -> None:
    """Drop rows of `step` and later, and a last row that was cut off in writing."""
    if not path.is_file():
        return
    kept = [line for line in path.read_text(encoding="utf-8").splitlines() if _before(line, step)]
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
    temporary.replace(path)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of one of the two files, in order, but for those cut off in writing."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if _before(line, math.inf)]


def _before(line: str, step: float) -> bool:
    try:
        return bool(json.loads(line)["step"] < step)
    except (ValueError, KeyError, TypeError, RecursionError):
        return False
