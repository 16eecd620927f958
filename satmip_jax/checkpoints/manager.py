"""Checkpoints: the training state and all that is needed to go on from it or to evaluate it.

A checkpoint holds two items: `state` (parameters, optimiser state, step; the step is also the
position in the data) and `run` (config, schema, version, and a record of every leaf). Orbax writes
it under a temporary name and renames it when it is whole; then it is read back and compared with
the record, while training goes on. Older ones are deleted only after that. What is not whole is
not restored: it is moved to `<workdir>/damaged`, and the newest whole one is taken.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

import satmip_jax
from satmip_jax.checkpoints import integrity
from satmip_jax.checkpoints.read_back import ReadBack, short_reason
from satmip_jax.config.conversion import from_json, to_json
from satmip_jax.distributed.multihost import is_main_process
from satmip_jax.errors import ConfigError, SatmipError
from satmip_jax.metadata.schema import Schema, SchemaError

PyTree = Any

log = logging.getLogger(__name__)

# What orbax trips over in damaged files; not RuntimeError, which is a device's want of memory.
UNREADABLE = (OSError, ValueError, LookupError, TypeError, AttributeError, AssertionError)


class CheckpointError(SatmipError, ValueError):
    """A checkpoint that does not fit; the message names each missing or misshapen leaf."""


class SaveError(SatmipError, OSError):
    """The last checkpoint of a run could not be written."""


class Checkpoints:
    """The checkpoints of one run, in `<workdir>/checkpoints`.

    Args:
        workdir: folder of the run.
        keep: how many of the newest stay, beside the best by `scores`.
        read_only: nothing is written, moved or deleted.

    Attributes:
        scores: step -> score, higher is better; filled by whoever evaluates.

    Example:
        >>> with Checkpoints(workdir, keep=2) as checkpoints:
        ...     checkpoints.save(step, state, config, schema)
        ...     state = checkpoints.restore(abstract_state)
    """

    def __init__(self, workdir: str | Path, *, keep: int = 2, read_only: bool = False) -> None:
        self.folder = Path(workdir).resolve() / "checkpoints"
        self.keep, self.read_only = keep, read_only
        self.scores: dict[int, float] = {}
        self._reading_back: ReadBack | None = None
        self._failure = ""  # why the last save came to nothing
        if read_only and not self.folder.is_dir():
            raise CheckpointError(
                f"{workdir} holds no checkpoints: train first, `satmip train --workdir {workdir}`"
            )
        self._manager = self._open()

    def _open(self) -> ocp.CheckpointManager:
        return ocp.CheckpointManager(
            self.folder,
            options=ocp.CheckpointManagerOptions(
                max_to_keep=None,  # see `_delete_old`
                create=not self.read_only,
                read_only=self.read_only,
                cleanup_tmp_directories=not self.read_only,
            ),
            item_handlers={
                "state": ocp.StandardCheckpointHandler(),
                "run": ocp.JsonCheckpointHandler(),
            },
        )

    @property
    def latest(self) -> int | None:
        """Step of the newest checkpoint, or None."""
        return self._manager.latest_step()

    @property
    def best(self) -> int | None:
        """Step of the checkpoint with the highest score, or None."""
        scored = [step for step in self._manager.all_steps() if step in self.scores]
        return max(scored, key=lambda step: (self.scores[step], step), default=None)

    # --- saving -----------------------------------------------------------------------------------

    def save(
        self, step: int, state: PyTree, config: ConfigDict, schema: Schema, *, hurry: bool = False
    ) -> None:
        """Start writing a checkpoint; returns as soon as `state` may be donated again.

        What goes wrong in writing, for want of space say, is told when it is known; `wait` raises.

        Args:
            hurry: do not wait for the checkpoint before to be read back.

        Raises:
            CheckpointError: the state holds what is not finite: nothing is written.
        """
        self.settle(read_back=not hurry)
        try:
            leaves = integrity.record(state)
        except FloatingPointError as error:
            raise CheckpointError(f"the state after step {step} is not saved: {error}") from error
        run = {
            "version": satmip_jax.__version__,
            "config": to_json(config),
            "schema": schema.to_json(),
            "leaves": leaves,
        }
        items = {"state": ocp.args.StandardSave(state), "run": ocp.args.JsonSave(run)}
        pending = ReadBack(self._manager, step, self.folder / str(step), leaves)
        self._reading_back = pending
        try:
            self._manager.save(step, args=ocp.args.Composite(**items))
        except (OSError, ValueError) as error:  # tensorstore's errors are ValueErrors
            pending.written = error
            self.settle()
        else:
            pending.start()

    def poll(self) -> None:
        """Tell what became of the last save, if that is known by now."""
        pending = self._reading_back
        if pending is not None and jax.process_count() == 1 and pending.done():
            self.settle()

    def settle(self, *, read_back: bool = True) -> None:
        """Wait until the last save is on disk and read back (or not); tell what went wrong."""
        pending, self._reading_back = self._reading_back, None
        if pending is None:
            return
        written, damage = pending.finish(read_back)
        reason = f"could not be written: {short_reason(written)}" if written else damage
        if jax.process_count() > 1 and read_back:
            reasons = multihost_utils.process_allgather(np.array([bool(reason)]))
            if reasons.any() and not reason:
                reason = "is not whole on another process"
        self._failure = f"checkpoint {pending.step} {reason}" if reason else ""
        if not reason:
            if read_back:
                self._delete_old()
            return
        kept = ", ".join(str(step) for step in self._steps() if step != pending.step) or "none yet"
        log.warning(
            f"{self._failure}\n"
            f"  Checkpoints kept: {kept}. Training goes on; the next save tries anew."
        )
        self._reopen(damaged=[pending.step])

    def wait(self, *, read_back: bool = True) -> None:
        """Block until everything that was saved is whole on disk.

        Args:
            read_back: False where time is short; then a restore is the first to read it.

        Raises:
            SaveError: the last save came to nothing.
        """
        self.settle(read_back=read_back)
        if self._failure:
            raise SaveError(
                f"{self._failure}\n  The last state is lost; the newest checkpoint in "
                f"{self.folder} is {self.latest or 'none'}. Mend what is wrong (make room, say); "
                "the same command goes on from there."
            )

    def _delete_old(self) -> None:
        """Keep the newest and the best; called when the newest one is known to be whole."""
        steps = self._steps()
        for step in steps[: -self.keep]:
            if step != self.best:
                try:
                    self._manager.delete(step)
                except OSError as error:
                    log.warning(f"checkpoint {step} could not be deleted: {error}")

    def _reopen(self, damaged: list[int]) -> None:
        """Set damaged checkpoints aside, remove what failed saves left, and start afresh.

        Orbax raises the error of a failed save again in the next one.
        """
        for _ in range(5):  # each part of orbax that failed raises once before the rest is closed
            with suppress(OSError, ValueError):  # told already
                self._manager.close()
                break
        if is_main_process():
            for step in damaged:
                if (self.folder / str(step)).is_dir():
                    aside = self.folder.parent / "damaged" / str(step)
                    aside.parent.mkdir(exist_ok=True)
                    shutil.rmtree(aside, ignore_errors=True)
                    (self.folder / str(step)).rename(aside)
            for _ in range(50):  # writers that have not failed may go on for a moment
                if not (left := list(self.folder.glob("*.orbax-checkpoint-tmp*"))):
                    break
                for unfinished in left:
                    shutil.rmtree(unfinished, ignore_errors=True)
                time.sleep(0.1)
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("damaged checkpoints are set aside")
        self._manager = self._open()

    # --- restoring --------------------------------------------------------------------------------

    def restore(self, abstract: PyTree, step: int | None = None) -> PyTree:
        """Return the state saved at `step` with the shardings of `abstract`.

        By default it is that of the newest whole checkpoint; those that are not are named.

        Args:
            abstract: pytree of `jax.ShapeDtypeStruct` with shardings.

        Raises:
            CheckpointError: there is none, none is whole, or leaves are missing, unexpected or
                misshapen.
        """
        damaged = {}
        for candidate in self._choose(step):
            try:
                state = self._restore(abstract, candidate)
            except integrity.DamagedError as error:
                damaged[candidate] = str(error)
                continue
            for bad, reason in damaged.items():
                aside = (
                    "passed over" if self.read_only else f"moved to {self.folder.parent}/damaged"
                )
                log.warning(f"checkpoint {bad} is not whole and {aside}: {reason}")
            if damaged:
                log.warning(f"going back to checkpoint {candidate}")
                if not self.read_only:
                    self._reopen(damaged=[*damaged])
            return state
        reasons = "\n  ".join(f"{bad}: {reason}" for bad, reason in damaged.items())
        raise CheckpointError(
            f"no checkpoint in {self.folder} is whole:\n  {reasons}\n"
            "Put a whole one there, or train into another workdir."
        )

    def _restore(self, abstract: PyTree, step: int) -> PyTree:
        """The state of a checkpoint that has been read and compared with its record before."""
        folder = self.folder / str(step)
        problem = ""
        expected: integrity.Record = {}
        try:
            expected = self._record(folder, step)
        except integrity.DamagedError as error:
            problem = str(error)
        if not problem:
            self._compare(integrity.leaves(abstract), expected, step)
            # sizes are known to be the model's from here on, whoever wrote the checkpoint
            problem = integrity.problem(folder / "state", expected)
        if jax.process_count() > 1:
            problems = multihost_utils.process_allgather(np.array([bool(problem)]))
            if problems.any() and not problem:
                problem = "not whole on another process"
        if problem:
            raise integrity.DamagedError(problem)
        args = ocp.args.Composite(state=ocp.args.StandardRestore(abstract))
        try:
            return self._manager.restore(step, args=args)["state"]
        except UNREADABLE as error:  # files beside the leaves are damaged
            raise integrity.DamagedError(f"cannot be restored: {short_reason(error)}") from error

    def _record(self, folder: Path, step: int) -> integrity.Record:
        """What the leaves of a checkpoint should be."""
        run = integrity.read_json(folder / "run" / "metadata")
        if isinstance(run, dict) and "leaves" not in run:  # written by satmip before 0.2
            try:
                stored = integrity.leaves(self._manager.item_metadata(step)["state"])
            except UNREADABLE as error:
                raise integrity.DamagedError(f"cannot be read: {short_reason(error)}") from error
            return {name: [str(x.dtype), [*x.shape], ""] for name, x in stored.items()}
        return integrity.checked_record(run)

    def _compare(self, wanted: dict[str, Any], stored: integrity.Record, step: int) -> None:
        """Name each leaf that differs in presence, shape or dtype."""
        problems = [f"missing {name}" for name in sorted(wanted.keys() - stored.keys())]
        problems += [f"unexpected {name}" for name in sorted(stored.keys() - wanted.keys())]
        for name in sorted(wanted.keys() & stored.keys()):
            (dtype, shape, _), b = stored[name], wanted[name]
            if (dtype, shape) != (str(b.dtype), [*b.shape]):
                problems.append(f"{name} is {dtype}{shape}, expected {b.dtype}{[*b.shape]}")
        if problems:
            shown = "\n  ".join(problems[:20]) + ("\n  ..." if len(problems) > 20 else "")
            raise CheckpointError(
                f"checkpoint {step} in {self.folder} is of another model; {len(problems)} leaves "
                f"differ:\n  {shown}\nUse the config it was trained with, or another workdir."
            )

    def run(self, step: int | None = None) -> tuple[ConfigDict, Schema]:
        """Return the config and the schema saved at `step` (newest that can be read by default)."""
        problem: Exception | None = None
        for candidate in self._choose(step):
            path = self.folder / str(candidate) / "run" / "metadata"
            try:
                run = integrity.read_json(path)
                return from_json(run["config"]), Schema.from_json(run["schema"])
            except (
                integrity.DamagedError,
                ConfigError,
                SchemaError,
                KeyError,
                TypeError,
            ) as e:
                problem = problem or e
        raise CheckpointError(f"{self.folder}: {problem}") from problem

    def _steps(self) -> list[int]:
        return sorted(self._manager.all_steps())

    def _choose(self, step: int | None) -> Iterator[int]:
        """The step that is asked for, or all from the newest on."""
        steps = self._steps()
        if step in steps:
            return iter([step])
        if step is None and steps:
            return reversed(steps)
        have = ", ".join(map(str, steps)) or "none"
        raise CheckpointError(f"{self.folder} holds no checkpoint {step or ''} (there are: {have})")

    def close(self) -> None:
        if self._reading_back is not None:
            self._reading_back.finish(read_back=False)
        try:
            self._manager.close()
        except (OSError, ValueError) as error:
            log.warning(f"the last checkpoint could not be written: {short_reason(error)}")

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
