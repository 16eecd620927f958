"""The state of runs (`satmip status`): how far they are, how well, and whether they are running."""

from __future__ import annotations

import fcntl
import glob
import itertools
import os
import re
import socket
import statistics
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from rich.markup import escape
from rich.table import Table

from satmip_jax.checkpoints.run_item import saved_steps
from satmip_jax.config.training_length import total_steps
from satmip_jax.errors import SatmipError
from satmip_jax.report.files import ReportError, read_object
from satmip_jax.report.run import Run, is_number, read_run
from satmip_jax.runtime.paths import AnyPath, as_path, is_remote, local_path
from satmip_jax.training.run_state import FAILED, FINISHED, RUNNING, STATE_FILE, STOPPED
from satmip_jax.training.workdir import LOCK_FILE

LOST, UNREADABLE = "lost", "unreadable"
QUIET = 600.0  # seconds without a row after which a run counts as lost, at least
_GAPS = 5  # or so many times the usual time between two rows
_HELD, _LEFT, _ELSEWHERE, _FREE = "held", "left", "elsewhere", "free"  # states of a lock
_DEPTH = 3  # of folders that are searched for runs
_STYLES = {RUNNING: "green", FINISHED: "bold", FAILED: "red", LOST: "yellow", UNREADABLE: "red"}
_SIGNS = ("metrics.jsonl", "environment.jsonl", LOCK_FILE, "checkpoints")  # of a run, with a config


@dataclass(frozen=True)
class Status:
    """The state of one run.

    Attributes:
        folder: of the run.
        state: "running"; "finished"; "stopped" by a signal; "failed"; "lost": it neither runs nor
            has an end recorded, as if killed; "unreadable".
        title: method, encoder and data set.
        step: steps done, as far as metrics and checkpoints tell.
        planned: steps of the whole run; None where it is unknown.
        loss: last mean of the loss.
        best: highest score.
        best_name: "knn at 400" for the score of the training at this step, else the protocol.
        images_per_second: median of the last rows.
        seconds_left: until the end at this rate; None unless the run is running.
        last_sign: time of the last row of metrics or of the recorded state, seconds since 1970.
        reason: of a failure or a stop.
    """

    folder: str
    state: str
    title: str = ""
    step: int = 0
    planned: int | None = None
    loss: float | None = None
    best: float | None = None
    best_name: str = ""
    images_per_second: float | None = None
    seconds_left: float | None = None
    last_sign: float | None = None
    reason: str = ""

    def record(self) -> dict[str, Any]:
        """Return the status as plain JSON."""
        return asdict(self)


def find_runs(folders: Iterable[str | os.PathLike[str]]) -> list[AnyPath]:
    """Return the workdirs that folders name or hold.

    Args:
        folders: workdirs, folders above them, or patterns such as "runs/*".

    Raises:
        ReportError: one of them holds no run.

    Example:
        >>> from satmip_jax.report.status import find_runs
        >>> find_runs([workdir]) == [Path(workdir)]
        True
    """
    runs: dict[str, AnyPath] = {}
    for given in folders:
        found = [run for folder in _expand(os.fspath(given)) for run in _search(folder, _DEPTH)]
        if not found:
            raise ReportError(
                f"{os.fspath(given)} holds no run of `satmip train`: give its --workdir, or a "
                f"folder above it (up to {_DEPTH} levels)"
            )
        runs |= {os.fspath(run): run for run in found}
    return list(runs.values())


def _expand(text: str) -> list[AnyPath]:
    if not re.search(r"[*?\[]", text) or as_path(text).exists():
        return [as_path(text)]
    if not is_remote(text):
        return [as_path(path) for path in sorted(glob.glob(text))]
    first = re.split(r"/(?=[^/]*[*?\[])", text, maxsplit=1)
    return sorted(as_path(first[0]).glob(first[1]))


def _search(folder: AnyPath, depth: int) -> Iterator[AnyPath]:
    """Yield a folder if it is a run, else the runs within it."""
    if (folder / "config.json").is_file() and any((folder / name).exists() for name in _SIGNS):
        yield folder
    elif depth and folder.is_dir():
        with suppress(PermissionError):
            for child in sorted(folder.iterdir()):
                if not child.name.startswith(".") and child.is_dir():
                    yield from _search(child, depth - 1)


def read_status(folder: AnyPath, now: float | None = None) -> Status:
    """Return the state of a run, from its metrics, its recorded state and its lock.

    The times of files are not used unless the metrics are of a version without times: folders are
    copied.

    Args:
        folder: workdir of the run.
        now: seconds since 1970; None for the present.

    Example:
        >>> from satmip_jax.report.status import read_status
        >>> status = read_status(Path(workdir))
        >>> status.state, status.step, status.planned
        ('finished', 4, 4)
    """
    now = time.time() if now is None else now
    try:
        run = read_run(folder, folder.name)
        recorded = _recorded(folder)
    except (SatmipError, OSError, ValueError) as error:
        return Status(os.fspath(folder), UNREADABLE, reason=str(error))
    losses = [row for row in run.history if is_number(row.get("loss"))]
    steps = [int(row["step"]) for row in run.history]
    step = max([*steps, *saved_steps(folder)], default=0)
    planned = _planned(run, recorded)
    rates = [row["images_per_second"] for row in losses if is_number(row.get("images_per_second"))]
    rate = statistics.median(rates[-5:]) if rates else None
    signs = [row["time"] for row in run.history if is_number(row.get("time"))]
    last_sign = max([*signs[-1:], *_numbers(recorded.get("time"))], default=None)
    if last_sign is None:
        last_sign = _file_time(folder / "metrics.jsonl")
    state = _state(folder, recorded, step, planned, _is_recent(signs, last_sign, now))
    left = None
    if state == RUNNING and rate and planned:
        left = max(planned - step, 0) * run.config.optimizer.batch_size / rate
    best, best_name = _best(run)
    return Status(
        os.fspath(folder),
        state,
        title=run.title,
        step=step,
        planned=planned,
        loss=losses[-1]["loss"] if losses else None,
        best=best,
        best_name=best_name,
        images_per_second=rate,
        seconds_left=left,
        last_sign=last_sign,
        reason=str(recorded.get("reason", ""))[:500] if state in (FAILED, STOPPED) else "",
    )


def _recorded(folder: AnyPath) -> dict[str, Any]:
    path = folder / STATE_FILE
    return read_object(path) if path.is_file() else {}


def _planned(run: Run, recorded: dict[str, Any]) -> int | None:
    examples = run.schema.splits.get(run.config.data.train_split) if run.schema else None
    if examples:
        return total_steps(run.config, examples)
    numbers = _numbers(recorded.get("planned"))
    return int(numbers[0]) if numbers else None


def _numbers(value: object) -> list[float]:
    return [float(value)] if is_number(value) else []  # type: ignore[arg-type]


def _file_time(path: AnyPath) -> float | None:
    stat: Any = path.stat() if path.is_file() else None
    return None if stat is None else float(getattr(stat, "st_mtime", None) or stat.mtime)


def _is_recent(signs: Sequence[float], last: float | None, now: float) -> bool:
    """Whether the last sign of life is as young as those of a running process."""
    gaps = [b - a for a, b in zip(signs[-10:], signs[-9:], strict=False)]
    patience = max([QUIET, *(_GAPS * gap for gap in gaps)])
    return last is not None and now - last <= patience


def _state(
    folder: AnyPath, recorded: dict[str, Any], step: int, planned: int | None, recent: bool
) -> str:
    lock, state = _lock(folder), recorded.get("state")
    if lock == _HELD:
        return RUNNING
    if state in (STOPPED, FAILED, FINISHED):
        return str(state)
    if planned is not None and step >= planned:
        return FINISHED
    if state != RUNNING and lock == _FREE:  # a version that recorded no states
        return STOPPED
    known_here = lock == _LEFT or (lock == _FREE and not is_remote(folder))
    return RUNNING if recent and not known_here else LOST


def _lock(folder: AnyPath) -> str:
    """Return the state of a workdir's lock.

    Returns:
        _HELD by a process; _LEFT by one of this machine that did not end in order; _ELSEWHERE if it
        names another machine; _FREE if there is none, in a bucket too, or it was freed.
    """
    if is_remote(folder):
        return _FREE
    try:
        with (local_path(folder, "WORKDIR") / LOCK_FILE).open("rb") as file:
            holder = file.read(300).decode(errors="replace").strip()
            if not holder:
                return _FREE
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return _HELD
    except OSError:  # no lock, or none on this file system
        return _FREE
    return _LEFT if holder.endswith(f" on {socket.gethostname()}") else _ELSEWHERE


def _best(run: Run) -> tuple[float | None, str]:
    """Return the best kNN score of the training, else the best accuracy in evaluation.json."""
    knn = [
        (row["knn_image"], row["step"]) for row in run.history if is_number(row.get("knn_image"))
    ]
    if knn:
        value, step = max(knn)
        return value, f"knn at {int(step):,}"
    scores = [
        (score.value, score.protocol)
        for score in run.scores
        if score.metric == "accuracy"
        and score.features == "image"
        and score.protocol.isidentifier()  # neither blocked nor with another bank
    ]
    if scores:
        value, protocol = max(scores)
        return value, protocol
    return None, ""


def status_table(statuses: Sequence[Status], now: float | None = None) -> Table:
    """Return the states as a table.

    Args:
        statuses: of the runs.
        now: seconds since 1970; None for the present.
    """
    now = time.time() if now is None else now
    above = zip(*(status.folder.split("/")[:-1] for status in statuses), strict=False)
    shared = itertools.takewhile(lambda names: len(set(names)) == 1, above)
    parent = "".join(f"{names[0]}/" for names in shared)
    table = Table(box=None, title=parent or None, title_justify="left")
    for name in ("run", "state", "step", "loss", "best score", "images/s", "left", "last sign"):
        right = name in ("step", "loss", "images/s", "left", "last sign")
        table.add_column(
            name,
            justify="right" if right else "left",
            overflow="fold",
            no_wrap=name not in ("run", "best score"),
        )
    for status in statuses:
        style = _STYLES.get(status.state, "")
        planned = f"/{status.planned:,}" if status.planned else ""
        best = f"{status.best:.1%} {status.best_name}" if status.best is not None else ""
        ago = "" if status.last_sign is None else f"{_duration(now - status.last_sign, 1)} ago"
        table.add_row(
            escape(status.folder.removeprefix(parent)),
            f"[{style}]{status.state}[/]" if style else status.state,
            f"{status.step:,}{planned}" if status.state != UNREADABLE else "",
            "" if status.loss is None else f"{status.loss:.3f}",
            escape(best),
            "" if status.images_per_second is None else f"{status.images_per_second:,.0f}",
            "" if status.seconds_left is None else _duration(status.seconds_left),
            ago,
        )
    return table


def _duration(seconds: float, units: int = 2) -> str:
    """Format a time with its largest units."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [f"{days} d", f"{hours} h", f"{minutes} min", f"{rest} s"]
    first = next((i for i, part in enumerate(parts) if not part.startswith("0 ")), 3)
    return " ".join(parts[first : first + units] if first < 2 else parts[first : first + 1])
