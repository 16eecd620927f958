"""Log of a run: metrics as JSON Lines and TensorBoard events, its environment, a progress bar."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from tqdm import tqdm

from satmip_jax.distributed.multihost import is_main_process
from satmip_jax.runtime.environment import environment
from satmip_jax.runtime.files import write_atomically
from satmip_jax.runtime.paths import AnyPath, is_remote
from satmip_jax.training.log_folder import LogFolder
from satmip_jax.training.run_state import write_running, write_state
from satmip_jax.training.wandb_log import WANDB_FILE, WandbLog

log = logging.getLogger(__name__)

METRICS_FILE = "metrics.jsonl"
STARTS_FILE = "environment.jsonl"
# Rows are numbered by steps done. Versions before the number was recorded in environment.jsonl
# numbered the losses from 0, and the scores by steps done.
NUMBERING = 2


class MetricsLog:
    """Writes `metrics.jsonl` and TensorBoard events in a workdir, and shows a progress bar.

    The step of a row is the number of steps done: the losses of the first step are row 1, and the
    scores in row n are those of the state after n steps. Its time is in seconds since 1970, UTC.
    `state.json` says whether the run is running, or how it ended. Every start of a run adds a row
    to `environment.jsonl`: the step it starts at, the devices and the versions of packages. Only
    the main process writes and shows anything. Rows of steps after `start`, left by a run that
    ended after its last checkpoint, are removed first. If the disk is full the run continues with a
    warning, and rows are dropped until there is space. In a bucket the files appear when they are
    uploaded, see `LogFolder`.

    Args:
        workdir: folder of the run.
        start: number of steps done before this start of the run.
        total: number of steps of the whole run.
        batch_size: images per step.
        wandb: project of Weights & Biases that receives the metrics, too; "" for none.
        config: of the run, for that project.

    Example:
        >>> from satmip_jax.training.metrics_log import MetricsLog, read_rows
        >>> with MetricsLog(Path("."), start=0, total=2, batch_size=16) as metrics_log:
        ...     metrics_log.write(1, {"loss": 2.5})
        ...     metrics_log.advance(1)
        >>> (row,) = read_rows(Path("metrics.jsonl"))
        >>> row["step"], row["loss"]
        (1, 2.5)
    """

    def __init__(
        self,
        workdir: AnyPath,
        *,
        start: int,
        total: int,
        batch_size: int,
        wandb: str = "",
        config: Mapping[str, Any] | None = None,
    ) -> None:
        self.main = is_main_process()
        self.batch_size = batch_size
        self._step, self._total = start, total
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
        self._write_error = ""  # of the last row, if it was dropped
        self._folder = LogFolder(workdir, (METRICS_FILE, STARTS_FILE, WANDB_FILE))
        folder = self._folder.path
        self._path = folder / METRICS_FILE
        self._tensorboard = TensorBoardWriter(folder / "tensorboard", start + 1)
        renumber(folder)
        for name in (METRICS_FILE, STARTS_FILE):
            keep_rows_before(folder / name, start)
        with suppress(OSError):  # the first row of metrics will report a full disk
            row = {"step": start, "numbering": NUMBERING, **environment()}
            append_row(folder / STARTS_FILE, row)
            write_running(folder, step=start, planned=total)
        self._wandb: WandbLog | None = None
        if wandb:
            files = None if is_remote(workdir) else folder
            self._wandb = WandbLog(
                wandb, folder, name=workdir.name, config=config or {}, files=files
            )
        self._folder.upload()

    def advance(self, steps: int) -> None:
        """Move the progress bar by a number of steps."""
        self.bar.update(steps * self.batch_size)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Write one row; non-finite values become null, because JSON has no NaN.

        Args:
            step: number of steps done.
            values: name -> value.
        """
        if "loss" in values:
            self.bar.set_postfix(loss=f"{values['loss']:.3f}", refresh=False)
        if not self.main:
            return
        self._step = max(self._step, step)
        finite = {k: v if abs(v) < float("inf") else None for k, v in values.items()}
        try:
            append_row(self._path, {"step": step, **finite, "time": round(time.time(), 1)})
            self._tensorboard.write(step, values)
        except OSError as error:
            if not self._write_error:
                log.warning(
                    f"metrics of step {step} could not be written: {error}\n"
                    "  Training continues; rows are dropped until they can be written again."
                )
            self._write_error = str(error)
        else:
            if self._write_error:
                log.info(f"metrics are written again, from step {step} on")
            self._write_error = ""
        self._folder.upload_now_and_then()
        if self._wandb is not None:
            self._wandb.write(step, values)

    def flush(self) -> None:
        """Let all rows reach the workdir; call it before a checkpoint is saved."""
        if self.main:
            self._folder.upload()

    def close(self, error: BaseException | None = None) -> None:
        """Close the progress bar and the event file, and record how the run ended.

        Args:
            error: that ended it; None if all steps were done.
        """
        self.bar.close()
        if self.main:
            self._tensorboard.close()
            with suppress(OSError):
                write_state(self._folder.path, step=self._step, planned=self._total, error=error)
            self._folder.close()
            if self._wandb is not None:
                self._wandb.close(0 if error is None else getattr(error, "exit_code", 1))

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close(error)


class TensorBoardWriter:
    """Scalars of one start of a run, in an event file of TensorBoard.

    It frames events by tensorboardX's `RecordWriter`. Its `SummaryWriter` would write from a
    thread that ends at the first error: on a full disk events are lost in silence, and the process
    hangs at its exit, where it waits for the thread's queue to drain.

    Args:
        folder: folder of the event files; it is made at the first `write`.
        start: first step that this start of the run writes: TensorBoard hides the rows of earlier
            files from this step on.
    """

    def __init__(self, folder: Path, start: int) -> None:
        self._folder, self._start = folder, start
        self._file: Any = None

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Write the values of a step, by name.

        Raises:
            OSError: they cannot be written; the next call begins a new file.
        """
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.proto.summary_pb2 import Summary

        try:
            if self._file is None:
                self._open()
                restart = SessionLog(status=SessionLog.START)
                self._append(Event(step=self._start, session_log=restart))
            for name, value in values.items():
                scalar = Summary.Value(tag=name, simple_value=value)
                self._append(Event(step=step, summary=Summary(value=[scalar])))
            self._file.flush()
        except OSError:
            self.close()  # readers stop at an incomplete event
            self._start = step
            raise

    def close(self) -> None:
        """Close the file, whether or not the rest of it can be written."""
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):  # `write` has raised it
                file.close()

    def _open(self) -> None:
        from tensorboardX import RecordWriter
        from tensorboardX.proto.event_pb2 import Event

        self._folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard finds files by "tfevents" and reads them in the order of their names
        name = f"events.out.tfevents.{int(time.time())}.{self._start}"
        self._file = RecordWriter(str(self._folder / name))
        self._append(Event(file_version="brain.Event:2"))

    def _append(self, event: Any) -> None:
        event.wall_time = time.time()
        self._file.write(event.SerializeToString())


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Append one row as a complete line, even after a line that was cut off by a full disk.

    Raises:
        OSError: there is no space for all of the row.
    """
    with path.open("a+b", buffering=0) as file:
        if end := file.seek(0, 2):
            file.seek(end - 1)
        cut_off = bool(end) and file.read(1) != b"\n"
        line = (b"\n" if cut_off else b"") + json.dumps(row).encode() + b"\n"
        if file.write(line) != len(line):
            raise OSError(f"{path}: no space left for a row")


def keep_rows_before(path: Path, step: int) -> None:
    """Remove the rows of steps after `step`, and incomplete rows.

    The rows of `step` itself, losses of the last step done and scores of the state, are kept.
    """
    if not path.is_file():
        return
    kept = [line for line in _lines(path) if _until(line, step)]
    try:
        write_atomically(path, "".join(line + "\n" for line in kept))
    except OSError as error:
        log.warning(f"{path}: old rows after step {step} could not be removed: {error}")


def renumber(workdir: Path) -> None:
    """Renumber the losses in the log of an earlier version by steps done, as its scores are.

    Such a log has losses of step 0, or no start of the run that records its numbering.
    """
    path, starts = workdir / METRICS_FILE, workdir / STARTS_FILE
    rows = read_rows(path) if path.is_file() else []
    begun = read_rows(starts) if starts.is_file() else []
    unnumbered = bool(begun) and not any("numbering" in row for row in begun)
    if not unnumbered and not any("loss" in row and row["step"] == 0 for row in rows):
        return
    rows = [row | {"step": row["step"] + 1} if "loss" in row else row for row in rows]
    try:
        write_atomically(path, "".join(json.dumps(row) + "\n" for row in rows))
    except OSError as error:
        log.warning(f"{path}: the rows of an earlier version keep their numbers: {error}")


def read_rows(path: AnyPath) -> list[dict[str, Any]]:
    """Return the complete rows of one of the two files, in order."""
    return [json.loads(line) for line in _lines(path) if _until(line, math.inf)]


def read_knn_scores(workdir: AnyPath) -> dict[int, float]:
    """Return the kNN accuracy of the image features by step, for all states that were scored."""
    path = workdir / METRICS_FILE
    rows = read_rows(path) if path.is_file() else []
    return {int(row["step"]): row["knn_image"] for row in rows if row.get("knn_image") is not None}


def _lines(path: AnyPath) -> list[str]:
    # damaged bytes cost their row, as an incomplete line does
    return path.read_bytes().decode(errors="replace").splitlines()


def _until(line: str, step: float) -> bool:
    try:
        return bool(json.loads(line)["step"] <= step)
    except (ValueError, KeyError, TypeError, RecursionError):
        return False
