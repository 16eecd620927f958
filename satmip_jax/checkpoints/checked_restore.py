"""Restoring a checkpoint, or a part of it, after its leaves were compared with their record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from satmip_jax.checkpoints import integrity
from satmip_jax.checkpoints.read_back import short_reason
from satmip_jax.errors import SatmipError
from satmip_jax.runtime.paths import AnyPath

PyTree = Any

# Errors of orbax on damaged files. Not RuntimeError: that is a device out of memory.
UNREADABLE = (OSError, ValueError, LookupError, TypeError, AttributeError, AssertionError)
MAX_LISTED = 20  # leaves in a message


class CheckpointError(SatmipError, ValueError):
    """A missing or unsuitable checkpoint; the message names each missing or misshapen leaf."""


class NoneIntactError(CheckpointError):
    """All checkpoints of a run are damaged; the message gives the reason for each."""


def restore_checked(folder: AnyPath, abstract: PyTree, *, partial: bool = False) -> PyTree:
    """Return the state in a checkpoint, placed by the shardings of `abstract`.

    With several processes, all of them call it, and all raise if one finds damage.

    Args:
        folder: of the checkpoint; its name is the step.
        abstract: pytree of `jax.ShapeDtypeStruct` with shardings: the state, or if `partial`
            complete entries of its top level, such as "params".
        partial: neither check nor read other entries.

    Raises:
        DamagedError: leaves are missing or changed on disk; the message names them.
        CheckpointError: the checkpoint is of another model; the message names the leaves.
    """
    problem = ""
    try:
        stored = integrity.checked_record(integrity.read_run(folder))
    except integrity.DamagedError as error:
        problem = str(error)
    else:
        wanted = integrity.named_leaves(abstract)
        if partial:
            entries = {_entry(name) for name in wanted}
            stored = {name: leaf for name, leaf in stored.items() if _entry(name) in entries}
        _compare(wanted, stored, folder)
        # from here on, sizes are known to be the model's, even in an untrusted checkpoint
        problem = integrity.find_problem(folder / "state", stored)
    if jax.process_count() > 1:
        problems = multihost_utils.process_allgather(np.array([bool(problem)]))
        if problems.any() and not problem:
            problem = "damaged on another process"
    if problem:
        raise integrity.DamagedError(problem)
    args = ocp.args.PyTreeRestore(
        abstract,
        restore_args=ocp.checkpoint_utils.construct_restore_args(abstract),
        partial_restore=partial,
    )
    try:
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
            return reader.restore(folder / "state", args=args)
    except UNREADABLE as error:  # files beside the leaves are damaged
        raise integrity.DamagedError(f"cannot be restored: {short_reason(error)}") from error


def _entry(name: str) -> str:
    """Return the entry of the top level that a leaf belongs to."""
    return name.split(".", maxsplit=1)[0]


def _compare(wanted: Mapping[str, Any], stored: integrity.Record, folder: AnyPath) -> None:
    """Raise CheckpointError with each leaf that differs in presence, shape or dtype."""
    problems = [f"missing {name}" for name in sorted(wanted.keys() - stored.keys())]
    problems += [f"unexpected {name}" for name in sorted(stored.keys() - wanted.keys())]
    for name in sorted(wanted.keys() & stored.keys()):
        (dtype, shape, _), leaf = stored[name], wanted[name]
        if (dtype, shape) != (str(leaf.dtype), [*leaf.shape]):
            problems.append(f"{name} is {dtype}{shape}, expected {leaf.dtype}{[*leaf.shape]}")
    if problems:
        listed = "\n  ".join(problems[:MAX_LISTED])
        listed += "\n  ..." if len(problems) > MAX_LISTED else ""
        raise CheckpointError(
            f"checkpoint {folder.name} in {folder.parent} is of another model; {len(problems)} "
            f"leaves differ:\n  {listed}\nUse the config it was trained with, or another workdir."
        )
