"""The state of a run, as its process records it: `state.json` in the workdir."""

from __future__ import annotations

import json
import time
from pathlib import Path

from satmip_jax.errors import INTERRUPTED, SatmipError
from satmip_jax.runtime.files import write_atomically

STATE_FILE = "state.json"
RUNNING, FINISHED, STOPPED, FAILED = "running", "finished", "stopped", "failed"
_MAX_REASON = 500  # characters


def write_state(folder: Path, *, step: int, planned: int, error: BaseException | None) -> None:
    """Record that a run ended, and how.

    Args:
        folder: of the file.
        step: steps done, as far as metrics were written.
        planned: steps of the whole run.
        error: that ended the run; None if all steps were done.

    Raises:
        OSError: the file cannot be written.
    """
    if error is None:
        state = FINISHED
    elif isinstance(error, KeyboardInterrupt | SystemExit) or (
        isinstance(error, SatmipError) and error.exit_code == INTERRUPTED
    ):
        state = STOPPED
    else:
        state = FAILED
    reason = f"{type(error).__name__}: {error}"[:_MAX_REASON] if error is not None else ""
    _write(folder, {"state": state, "step": step, "planned": planned, "reason": reason})


def write_running(folder: Path, *, step: int, planned: int) -> None:
    """Record that a run started; a process that is killed leaves it at that.

    Args:
        folder: of the file.
        step: steps done before.
        planned: steps of the whole run.

    Raises:
        OSError: the file cannot be written.
    """
    _write(folder, {"state": RUNNING, "step": step, "planned": planned, "reason": ""})


def _write(folder: Path, record: dict[str, str | int]) -> None:
    text = json.dumps({**record, "time": round(time.time(), 1)})
    write_atomically(folder / STATE_FILE, text + "\n")
