"""Reading a checkpoint back after it was written, in a thread beside the training."""

from __future__ import annotations

import re
import threading

import orbax.checkpoint as ocp

from satmip_jax.checkpoints import folders, integrity
from satmip_jax.runtime.paths import AnyPath, is_remote
from satmip_jax.runtime.stores import store_errors

MAX_REASON = 500  # characters


class ReadBack:
    """A thread that waits until a save is committed, and compares the files with its record.

    Args:
        manager: the manager that saves.
        step: of the checkpoint.
        folder: of the checkpoint, once it is committed.
        leaves: the record, from `integrity.record`.

    Attributes:
        write_error: set by the caller if the save failed at once, or by `finish`.
    """

    def __init__(
        self, manager: ocp.CheckpointManager, step: int, folder: AnyPath, leaves: integrity.Record
    ) -> None:
        self.step = step
        self.write_error: Exception | None = None
        self._manager, self._folder, self._leaves = manager, folder, leaves
        self._problem = ""
        self._cancelled = threading.Event()
        self._thread = threading.Thread(target=self._run, name="read-back", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def _run(self) -> None:
        try:
            if self._wait_until_complete():
                integrity.read_run(self._folder)
                self._problem = integrity.find_problem(
                    self._folder / "state", self._leaves, self._cancelled.is_set
                )
        except integrity.DamagedError as error:
            self._problem = str(error)
        except Exception as error:
            self._problem = f"cannot be read back: {short_reason(error)}"

    def _wait_until_complete(self) -> bool:
        """Wait until the save has ended; return whether it succeeded."""
        while not folders.is_complete(self._folder):
            if self._cancelled.wait(0.5 if is_remote(self._folder) else 0.05):
                return False
            if not self._manager.is_saving_in_progress():
                return folders.is_complete(self._folder)
        return True

    def done(self) -> bool:
        """Whether the thread has ended."""
        return not self._thread.is_alive()

    def finish(self, read_back: bool) -> tuple[Exception | None, str]:
        """Wait until the save has ended, and for the thread.

        Args:
            read_back: False cancels the comparison; the leaves checked by then count.

        Returns:
            The error of the save, and the damage found in its files ("" if none).
        """
        if not read_back:
            self._cancelled.set()
        if self.write_error is None:
            try:
                with store_errors(self._folder):
                    self._manager.wait_until_finished()
            except (OSError, ValueError) as error:
                self.write_error = error
        if self.write_error is not None:
            self._cancelled.set()
        if self._thread.ident is not None:
            self._thread.join()
        return self.write_error, self._problem and f"is damaged: {self._problem}"


def short_reason(error: Exception) -> str:
    """Return the message of an error on one line, without tensorstore's specifications.

    A long message is cut in the middle: the reason of the operating system stands at its end.

    Example:
        >>> from satmip_jax.checkpoints.read_back import short_reason
        >>> short_reason(OSError("File too large [spec='{...}']"))
        'File too large'
    """
    text = re.sub(r" \[\w+='.*", "", " ".join(str(error).split())) or type(error).__name__
    return text if len(text) <= MAX_REASON else f"{text[:150]} ... {text[-345:]}"
