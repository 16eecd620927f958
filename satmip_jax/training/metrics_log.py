"""The log of a run: metrics as JSON Lines and TensorBoard, what computed them, a progress bar."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tqdm import tqdm

from satmip_jax.distributed.multihost import is_main_process
from satmip_jax.runtime.environment import environment
from satmip_jax.runtime.files import write_atomically

log = logging.getLogger(__name__)

METRICS_FILE = "metrics.jsonl"
STARTS_FILE = "environment.jsonl"


class MetricsLog:
    """Writes `metrics.jsonl` and TensorBoard events in a workdir, and shows a progress bar.

    Every start adds a row to `environment.jsonl`: the step it starts at, the devices and the
    versions of packages. Other processes than the first write and show nothing. Rows of steps from
    `start` on, left by a run that was cut off after its last checkpoint, are taken out first. A
    full disk does not end a run: it is told, and rows are lost until there is room.
    """

    def __init__(self, workdir: Path, *, start: int, total: int, batch_size: int) -> None:
        self.main = is_main_process()
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
        self._lost = ""  # why the last row could not be written
        self._path = workdir / METRICS_FILE
        self._events = Events(workdir / "tensorboard", start)
        for name in (METRICS_FILE, STARTS_FILE):
            keep_rows_before(workdir / name, start)
        with suppress(OSError):  # of a full disk the first row of metrics will tell
            append_row(workdir / STARTS_FILE, {"step": start, **environment()})

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
        try:
            append_row(self._path, {"step": step, **finite})
            self._events.write(step, values)
        except OSError as error:
            if not self._lost:
                log.warning(
                    f"metrics of step {step} could not be written: {error}\n"
                    "  Training goes on; rows are lost until this is mended."
                )
            self._lost = str(error)
        else:
            if self._lost:
                log.info(f"metrics are written again, from step {step} on")
            self._lost = ""

    def close(self) -> None:
        self.bar.close()
        if self.main:
            self._events.close()


class Events:
    """TensorBoard events of one start of a run.

    tensorboardX's own SummaryWriter writes in a thread that dies of a full disk, whereupon the
    trainer would wait for it for ever; its event file is used directly here.
    """

    def __init__(self, folder: Path, start: int) -> None:
        self._folder, self._start = folder, start
        self._file: Any = None

    def write(self, step: int, values: Mapping[str, float]) -> None:
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.summary import scalar

        try:
            if self._file is None:
                self._folder.mkdir(parents=True, exist_ok=True)
                self._file = EventsWriter(str(self._folder / "events"), f".{self._start}")
                restart = SessionLog(status=SessionLog.START)  # later steps of earlier files go
                self._file.write_event(Event(step=self._start, session_log=restart))
            for name, value in values.items():
                self._file.write_event(Event(step=step, summary=scalar(name, value)))
            self._file.flush()
        except OSError:
            self.close()  # what follows a torn event is not read, so a new file is begun
            self._start = step
            raise

    def close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):  # told when the row was written
                file.close()


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Append one row as a whole line, also after one that was cut off for want of space."""
    with path.open("a+b", buffering=0) as file:
        if end := file.seek(0, 2):
            file.seek(end - 1)
        torn = bool(end) and file.read(1) != b"\n"
        line = (b"\n" if torn else b"") + json.dumps(row).encode() + b"\n"
        if file.write(line) != len(line):
            raise OSError(f"{path}: no space left for a row")


def keep_rows_before(path: Path, step: int) -> None:
    """Drop rows of steps from `step` on, and those cut off in writing.

    A row with losses of step n is of the step that leads from state n to n + 1, one with scores of
    step n is of state n: that of `step` itself stays.
    """
    if not path.is_file():
        return
    kept = [line for line in path.read_text(encoding="utf-8").splitlines() if _before(line, step)]
    try:
        write_atomically(path, "".join(line + "\n" for line in kept))
    except OSError as error:
        log.warning(f"{path}: rows from step {step} on stay beside their repetition: {error}")


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of one of the two files, in order, but for those cut off in writing."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if _before(line, math.inf)]


def read_knn_scores(workdir: Path) -> dict[int, float]:
    """Step -> kNN accuracy of the image features, of those states that have been scored."""
    path = workdir / "metrics.jsonl"
    rows = read_rows(path) if path.is_file() else []
    return {int(row["step"]): row["knn_image"] for row in rows if row.get("knn_image") is not None}


def _before(line: str, step: float) -> bool:
    try:
        row = json.loads(line)
        return bool(row["step"] < step or (row["step"] == step and "loss" not in row))
    except (ValueError, KeyError, TypeError, RecursionError):
        return False
