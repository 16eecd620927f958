"""The `run` item of a checkpoint: the config and the schema of the run that saved it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from satmip_jax.checkpoints import folders, integrity
from satmip_jax.config.conversion import from_json
from satmip_jax.config.validation import validate
from satmip_jax.errors import ConfigError
from satmip_jax.metadata.schema import Schema, SchemaError
from satmip_jax.runtime.paths import AnyPath

FOLDER = "checkpoints"  # of a workdir


def read_run(folder: AnyPath) -> tuple[ConfigDict, Schema]:
    """Return the config and the schema of one checkpoint; it may be untrusted.

    Args:
        folder: of the checkpoint.

    Raises:
        DamagedError: one of them is missing or not valid; the message says what is wrong.
    """
    run: Any = integrity.read_run(folder)
    try:
        config = from_json(run["config"])
        validate(config)
        return config, Schema.from_json(run["schema"])
    except (ConfigError, SchemaError, KeyError, TypeError) as error:
        raise integrity.DamagedError(f"{folder.name}: {error}") from error


def saved_steps(workdir: AnyPath) -> list[int]:
    """Return the steps of the checkpoints in a workdir, the newest first; none may be intact."""
    return folders.steps_in(workdir / FOLDER)


def readable_runs(workdir: AnyPath) -> Iterator[tuple[int, ConfigDict, Schema]]:
    """Yield step, config and schema of the checkpoints that have them, the newest first."""
    for step in saved_steps(workdir):
        try:
            config, schema = read_run(workdir / FOLDER / str(step))
        except integrity.DamagedError:
            continue
        yield step, config, schema
