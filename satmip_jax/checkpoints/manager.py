"""Checkpoints: the training state, and all that is needed to resume or evaluate it.

A checkpoint holds two items: `state` (parameters, optimizer state, step; the step is also the
position in the data) and `run` (config, schema, version, and a record of every leaf). Orbax writes
it under a temporary name and renames it when it is complete. It is then read back and compared with
the record while training continues, and older checkpoints are deleted only after that. A damaged
checkpoint is never restored: it is moved to `<workdir>/damaged`, and the newest intact one is used.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

import satmip_jax
from satmip_jax.checkpoints import folders, integrity, run_item
from satmip_jax.checkpoints.checked_restore import (
    CheckpointError,
    NoneIntactError,
    restore_checked,
)
from satmip_jax.checkpoints.read_back import ReadBack, short_reason
from satmip_jax.checkpoints.staging import Staging, needs_staging
from satmip_jax.config.conversion import to_json
from satmip_jax.distributed.multihost import is_main_process
from satmip_jax.errors import SatmipError
from satmip_jax.metadata.schema import Schema
from satmip_jax.runtime.paths import absolute, as_path
from satmip_jax.runtime.stores import store_errors

PyTree = Any

__all__ = ["CheckpointError", "Checkpoints", "NoneIntactError", "SaveError"]

log = logging.getLogger(__name__)


class SaveError(SatmipError, OSError):
    """The last checkpoint of a run could not be written."""


class Checkpoints:
    """The checkpoints of one run, in `<workdir>/checkpoints`.

    Saving is asynchronous. The usual order of calls is `save`, then `poll` while training
    continues, and `wait` at the end; `close` (or the `with` block) releases files and threads. On
    several processes every process makes the same calls, except for `poll`, which does nothing.

    Args:
        workdir: folder of the run.
        keep: number of newest checkpoints to keep, besides the best by `scores`.
        read_only: write, move and delete nothing; the folder must exist.

    Attributes:
        folder: absolute path of the checkpoints, one folder per step.
        scores: step -> score, higher is better; filled by the caller.
        before_save: called before a checkpoint is written; an error of it is raised by `save`.

    Raises:
        CheckpointError: `read_only`, and there are no checkpoints.

    Example:
        >>> from satmip_jax.checkpoints.manager import Checkpoints
        >>> with Checkpoints(workdir, read_only=True) as checkpoints:
        ...     config, schema = checkpoints.run()
        ...     checkpoints.latest
        4
    """

    def __init__(
        self, workdir: str | os.PathLike[str], *, keep: int = 2, read_only: bool = False
    ) -> None:
        self.folder = absolute(as_path(workdir)) / run_item.FOLDER
        self.keep, self.read_only = keep, read_only
        self.scores: dict[int, float] = {}
        self.before_save: Callable[[], None] = lambda: None
        self.restored: int | None = None  # step of the last state that was restored
        self._reading_back: ReadBack | None = None
        self._failure = ""  # why the last save failed
        if read_only and not self.folder.is_dir():
            raise CheckpointError(
                f"{workdir} has no checkpoints: train first, `satmip train --workdir {workdir}`"
            )
        self._staging = Staging(self.folder) if needs_staging(self.folder) else None
        self._local = self._staging.folder if self._staging else self.folder  # for Orbax
        self._manager = self._open()

    def _open(self) -> ocp.CheckpointManager:
        with store_errors(self.folder):
            return ocp.CheckpointManager(
                self._local,
                options=ocp.CheckpointManagerOptions(
                    max_to_keep=None,  # see `_delete_old`
                    create=not self.read_only,
                    read_only=self.read_only,
                    cleanup_tmp_directories=not self.read_only,
                    # otherwise a folder that cannot be made leaves threads that wait 300 s for it
                    async_options=ocp.AsyncOptions(create_directories_asynchronously=False),
                ),
                item_handlers={
                    "state": ocp.StandardCheckpointHandler(),  # read by `restore_checked`
                    "run": ocp.JsonCheckpointHandler(),
                },
            )

    @property
    def latest(self) -> int | None:
        """Step of the newest checkpoint, or None."""
        return self._manager.latest_step()

    @property
    def best(self) -> int | None:
        """Step of the checkpoint with the highest score (of equals the newest), or None."""
        scored = [step for step in self._manager.all_steps() if step in self.scores]
        return max(scored, key=lambda step: (self.scores[step], step), default=None)

    # --- saving -----------------------------------------------------------------------------------

    def save(
        self, step: int, state: PyTree, config: ConfigDict, schema: Schema, *, hurry: bool = False
    ) -> None:
        """Start writing a checkpoint; return as soon as `state` may be donated again.

        Write errors (such as a full disk) are logged as soon as they are detected, and training
        may continue; `wait` raises them.

        Args:
            step: training steps done.
            state: pytree of `jax.Array`, such as a `TrainState`.
            config: of the run.
            schema: of the data that the model was built for.
            hurry: do not wait until the previous checkpoint has been read back.

        Raises:
            CheckpointError: the state holds values that are not finite. Nothing is written.
        """
        self.settle(read_back=not hurry)
        self.before_save()
        try:
            leaves = integrity.record(state)
        except FloatingPointError as error:
            raise CheckpointError(f"the state after step {step} is not saved: {error}") from error
        run: dict[str, Any] = {"version": satmip_jax.__version__, "config": to_json(config)}
        run = integrity.with_checksum({**run, "schema": schema.to_json(), "leaves": leaves})
        items = {"state": ocp.args.StandardSave(state), "run": ocp.args.JsonSave(run)}
        pending = ReadBack(self._manager, step, self._local / str(step), leaves)
        self._reading_back = pending
        try:
            with store_errors(self.folder):
                self._manager.save(step, args=ocp.args.Composite(**items))
        except (OSError, ValueError) as error:  # tensorstore's errors are ValueErrors
            pending.write_error = error
            self.settle()
        else:
            pending.start()

    def poll(self) -> None:
        """Settle the last save if it is finished; return at once if it is not.

        Call it between steps, so that write errors are logged early. With several processes it
        does nothing, as they would have to agree on the result; the next `save` or `wait` does.
        """
        pending = self._reading_back
        if pending is not None and jax.process_count() == 1 and pending.done():
            self.settle()

    def settle(self, *, read_back: bool = True) -> None:
        """Wait for the last save, and act on its result.

        An intact checkpoint makes older ones obsolete: they are deleted; in S3 it is uploaded
        first. A failed or damaged one is logged and moved aside, and training may continue.

        Args:
            read_back: wait until it has been compared with its record; False only waits until it
                is written.
        """
        pending, self._reading_back = self._reading_back, None
        if pending is None:
            return
        write_error, damage = pending.finish(read_back)
        if self._staging and not (write_error or damage):
            try:
                self._staging.upload(pending.step)
            except OSError as error:
                write_error = error
        reason = f"could not be written: {short_reason(write_error)}" if write_error else damage
        if jax.process_count() > 1:  # to reopen is for all, also where one alone could not write
            reasons = multihost_utils.process_allgather(np.array([bool(reason)]))
            if reasons.any() and not reason:
                reason = "is damaged on another process"
        self._failure = f"checkpoint {pending.step} {reason}" if reason else ""
        if not reason:
            if read_back:
                self._delete_old()
            return
        kept = ", ".join(str(step) for step in self._steps() if step != pending.step) or "none yet"
        log.warning(
            f"{self._failure}\n"
            f"  Checkpoints kept: {kept}. Training continues; the next save is another attempt."
        )
        self._reopen(damaged=[pending.step])

    def wait(self, *, read_back: bool = True) -> None:
        """Block until the last checkpoint is on disk and intact.

        Args:
            read_back: False where time is short; the checkpoint is then only checked by a restore.

        Raises:
            SaveError: the last save failed.
        """
        self.settle(read_back=read_back)
        if self._failure:
            raise SaveError(
                f"{self._failure}\n  The last state is lost; the newest checkpoint in "
                f"{self.folder} is {self.latest or 'none'}. Fix the problem (for example, free "
                "disk space) and run the same command again to resume."
            )

    def _delete_old(self) -> None:
        """Keep the newest and the best; called when the newest one is known to be intact."""
        steps = self._steps()
        for step in steps[: -self.keep]:
            if step != self.best:
                try:
                    folders.withdraw(self._local / str(step))
                    with store_errors(self.folder):
                        self._manager.delete(step)
                    if self._staging:
                        self._staging.delete(step)
                except OSError as error:
                    log.warning(f"checkpoint {step} could not be deleted: {error}")

    def _reopen(self, damaged: list[int]) -> None:
        """Replace the Orbax manager, which raises the error of a failed save again in the next one.

        The `damaged` steps are moved to `<workdir>/damaged`, and the temporary folders of failed
        saves are deleted (they hold disk space).
        """
        for _ in range(5):  # each part of orbax that failed raises once before the rest is closed
            with suppress(OSError, ValueError), store_errors(self.folder):  # already logged
                self._manager.close()
                break
        if is_main_process():
            try:
                folders.set_aside(self._local, damaged)
                if self._staging:
                    self._staging.set_aside(damaged)
            except OSError as error:  # of a bucket that cannot be reached
                log.warning(f"damaged or unfinished checkpoints could not be removed: {error}")
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("damaged checkpoints are set aside")
        self._manager = self._open()

    def abandon(self) -> None:
        """Move all checkpoints to `<workdir>/damaged`."""
        self._reopen(damaged=self._steps())

    # --- restoring --------------------------------------------------------------------------------

    def restore(self, abstract: PyTree, step: int | None = None) -> PyTree:
        """Return a saved state, placed by the shardings of `abstract`.

        Every leaf is compared with its record first. Without `step`, damaged checkpoints are
        logged and moved aside (skipped if `read_only`), and the newest intact one is restored.

        Args:
            abstract: pytree of `jax.ShapeDtypeStruct` with shardings, as the state was saved.
            step: of the checkpoint; the newest intact one by default.

        Returns:
            The pytree of `abstract`, of `jax.Array`.

        Raises:
            CheckpointError: there is no such checkpoint, none is intact, or leaves are missing,
                unexpected or misshapen; the message names them.
        """
        return self._restore_intact(abstract, step, partial=False)

    def restore_params(self, abstract_params: PyTree, step: int | None = None) -> PyTree:
        """Return only the parameters of a saved state; the optimizer state is not read.

        Checks and fallback are those of `restore`, for the leaves of the parameters.

        Args:
            abstract_params: pytree of `jax.ShapeDtypeStruct` with shardings, as from
                `models.abstract_params`.
            step: of the checkpoint; the newest one with intact parameters by default.

        Returns:
            The pytree of `abstract_params`, of `jax.Array`.

        Raises:
            CheckpointError: as for `restore`.

        Example:
            >>> from satmip_jax.checkpoints.manager import Checkpoints
            >>> from satmip_jax.metadata.schema import Schema
            >>> state = {"step": jnp.int32(7), "params": {"kernel": jnp.ones((2, 3))}}
            >>> with Checkpoints("run") as checkpoints:
            ...     checkpoints.save(7, state, config, Schema.load(shards / "schema.json"))
            ...     checkpoints.wait()
            ...     params = checkpoints.restore_params(jax.eval_shape(lambda: state["params"]))
            >>> params["kernel"].shape
            (2, 3)
        """
        return self._restore_intact({"params": abstract_params}, step, partial=True)["params"]

    def _restore_intact(self, abstract: PyTree, step: int | None, *, partial: bool) -> PyTree:
        """Restore `step`, or the newest intact checkpoint."""
        damaged = {}
        for candidate in self._choose(step):
            try:
                folder = self._local / str(candidate)
                state = restore_checked(folder, abstract, partial=partial)
            except integrity.DamagedError as error:
                damaged[candidate] = str(error)
                continue
            for bad, reason in damaged.items():
                aside = "skipped" if self.read_only else f"moved to {self.folder.parent}/damaged"
                log.warning(f"checkpoint {bad} is damaged and {aside}: {reason}")
            if damaged:
                log.warning(f"going back to checkpoint {candidate}")
                if not self.read_only:
                    self._reopen(damaged=[*damaged])
            self.restored = candidate
            return state
        reasons = "\n  ".join(f"{bad}: {reason}" for bad, reason in damaged.items())
        raise NoneIntactError(
            f"no checkpoint in {self.folder} is intact:\n  {reasons}\n"
            "Copy an intact one there, or train in another workdir."
        )

    def run(self, step: int | None = None) -> tuple[ConfigDict, Schema]:
        """Return the config and the schema that were saved with a checkpoint.

        Args:
            step: of the checkpoint; the newest one that can be read by default.

        Raises:
            CheckpointError: there is no such checkpoint, or none can be read; config and schema are
                validated, because the checkpoint may be untrusted.
        """
        problem: Exception | None = None
        for candidate in self._choose(step):
            try:
                return run_item.read_run(self._local / str(candidate))
            except integrity.DamagedError as error:
                problem = problem or error
        raise CheckpointError(f"{self.folder}: {problem}") from problem

    def _steps(self) -> list[int]:
        return sorted(self._manager.all_steps())

    def _choose(self, step: int | None) -> Iterator[int]:
        """Yield the given step, or all steps from the newest to the oldest."""
        steps = self._steps()
        if step in steps:
            return iter([step])
        if step is None and steps:
            return reversed(steps)
        available = ", ".join(map(str, steps)) or "none"
        raise CheckpointError(
            f"{self.folder} has no checkpoint {step or ''} (available: {available})"
        )

    def close(self) -> None:
        """Wait until the last save is written, and release the files and threads of Orbax.

        Reading back is cancelled, and a write error is logged, not raised: call `wait` before to be
        sure of the last checkpoint. The object cannot be used afterwards.
        """
        if self._reading_back is not None:
            self._reading_back.finish(read_back=False)
        try:
            with store_errors(self.folder):
                self._manager.close()
        except (OSError, ValueError) as error:
            log.warning(f"the last checkpoint could not be written: {short_reason(error)}")
        if self._staging:
            self._staging.close()

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
