"""Reading a checkpoint back after it was written, in a thread beside the training."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import orbax.checkpoint as ocp

from satmip_jax.checkpoints import integrity


class ReadBack:
    """A thread that waits for a save to be committed, and compares what is on disk."""

    def __init__(
        self, manager: ocp.CheckpointManager, step: int, folder: Path, leaves: integrity.Record
    ) -> None:
        self.step = step
        self.written: Exception | None = None
        self._manager, self._folder, self._leaves = manager, folder, leaves
        self._problem = ""
        self._cancelled = threading.Event()
        self._thread = threading.Thread(target=self._run, name="read-back", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        while not self._folder.is_dir():
            if self._cancelled.wait(0.05):
                return
            if not self._manager.is_saving_in_progress() and not self._folder.is_dir():
                return  # it failed
        try:
            self._problem = integrity.problem(
                self._folder / "state", self._leaves, self._cancelled.is_set
            )
        except Exception as error:
            self._problem = f"cannot be read back: {short_reason(error)}"

    def done(self) -> bool:
        return not self._thread.is_alive()

    def finish(self, read_back: bool) -> tuple[Exception | None, str]:
        """Wait; return the error of writing, or else what reading back found."""
        if not read_back:
            self._cancelled.set()
        if self.written is None:
            try:
                self._manager.wait_until_finished()
            except (OSError, ValueError) as error:
                self.written = error
        if self.written is not None:
            self._cancelled.set()
        if self._thread.ident is not None:
            self._thread.join()
        return self.written, self._problem and f"is damaged: {self._problem}"


def short_reason(error: Exception) -> str:
    """The message of an error on one line, without tensorstore's specifications.

    The middle of a long one is left out: the system's reason stands at its end.
    """
    text = re.sub(r" \[\w+='.*", "", " ".join(str(error).split())) or type(error).__name__
    return text if len(text) <= 500 else f"{text[:150]} ... {text[-345:]}"
