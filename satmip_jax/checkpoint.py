"""Checkpoints: the training state and all that is needed to go on from it or to evaluate it.

A checkpoint holds two items: `state` (parameters, optimiser state, step; the step is also the
position in the data) and `run` (config, schema, version). Orbax writes it under a temporary name
and renames it when it is whole.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from ml_collections import ConfigDict

import satmip_jax
from satmip_jax import config as configs
from satmip_jax.metadata.tabular import Schema

PyTree = Any


class CheckpointError(ValueError):
    """A checkpoint that does not fit; the message names each missing or misshapen leaf."""


class Checkpoints:
    """The checkpoints of one run, in `<workdir>/checkpoints`.

    Example:
        >>> with Checkpoints(workdir, keep=2) as checkpoints:
        ...     checkpoints.save(step, state, config, schema)
        ...     state = checkpoints.restore(abstract_state)
    """

    def __init__(self, workdir: str | Path, *, keep: int = 2, read_only: bool = False) -> None:
        self.folder = Path(workdir).resolve() / "checkpoints"
        if read_only and not self.folder.is_dir():
            raise CheckpointError(
                f"{workdir} holds no checkpoints: train first, `satmip train --workdir {workdir}`"
            )
        self._manager = ocp.CheckpointManager(
            self.folder,
            options=ocp.CheckpointManagerOptions(
                max_to_keep=None if read_only else keep, create=not read_only, read_only=read_only
            ),
            item_handlers={
                "state": ocp.StandardCheckpointHandler(),
                "run": ocp.JsonCheckpointHandler(),
            },
        )

    @property
    def latest(self) -> int | None:
        """Step of the newest whole checkpoint, or None."""
        return self._manager.latest_step()

    def save(self, step: int, state: PyTree, config: ConfigDict, schema: Schema) -> None:
        """Start writing a checkpoint; returns as soon as `state` may be donated again."""
        run = {
            "version": satmip_jax.__version__,
            "config": configs.to_json(config),
            "schema": schema.to_json(),
        }
        self._manager.save(
            step,
            args=ocp.args.Composite(state=ocp.args.StandardSave(state), run=ocp.args.JsonSave(run)),
        )

    def wait(self) -> None:
        """Block until everything that was saved is whole on disk."""
        self._manager.wait_until_finished()

    def restore(self, abstract: PyTree, step: int | None = None) -> PyTree:
        """Return the state saved at `step` (newest by default) with the shardings of `abstract`.

        Args:
            abstract: pytree of `jax.ShapeDtypeStruct` with shardings.

        Raises:
            CheckpointError: there is none, or leaves are missing, unexpected or misshapen.
        """
        step = self._step(step)
        self._check(abstract, step)
        args = ocp.args.Composite(state=ocp.args.StandardRestore(abstract))
        return self._manager.restore(step, args=args)["state"]

    def run(self, step: int | None = None) -> tuple[ConfigDict, Schema]:
        """Return the config and the schema saved at `step` (newest by default)."""
        args = ocp.args.Composite(run=ocp.args.JsonRestore())
        run = self._manager.restore(self._step(step), args=args)["run"]
        return configs.from_json(run["config"]), Schema.from_json(run["schema"])

    def _step(self, step: int | None) -> int:
        steps = self._manager.all_steps()
        if step is None and steps:
            return max(steps)
        if step is not None and step in steps:
            return step
        have = ", ".join(map(str, sorted(steps))) or "none"
        raise CheckpointError(f"{self.folder} holds no checkpoint {step or ''} (there are: {have})")

    def _check(self, abstract: PyTree, step: int) -> None:
        """Name each leaf that differs in presence, shape or dtype."""
        stored = _leaves(self._manager.item_metadata(step)["state"])
        wanted = _leaves(abstract)
        problems = [f"missing {name}" for name in sorted(wanted.keys() - stored.keys())]
        problems += [f"unexpected {name}" for name in sorted(stored.keys() - wanted.keys())]
        for name in sorted(wanted.keys() & stored.keys()):
            a, b = stored[name], wanted[name]
            if tuple(a.shape) != tuple(b.shape) or a.dtype != b.dtype:
                problems.append(f"{name} is {a.dtype}{[*a.shape]}, expected {b.dtype}{[*b.shape]}")
        if problems:
            shown = "\n  ".join(problems[:20]) + ("\n  ..." if len(problems) > 20 else "")
            raise CheckpointError(
                f"checkpoint {step} in {self.folder} is of another model; {len(problems)} leaves "
                f"differ:\n  {shown}\nUse the config it was trained with, or another workdir."
            )

    def close(self) -> None:
        self._manager.close()

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _leaves(tree: PyTree) -> dict[str, Any]:
    """Leaves by dotted name, the same for a pytree and for its description on disk."""

    def name(key: Any) -> str:
        return str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key))))

    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {".".join(map(name, path)): leaf for path, leaf in leaves}
