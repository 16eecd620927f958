"""Loading of a trained model from the workdir of its run, or from a folder that was exported."""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path
from typing import Any

import jax

from satmip_jax.checkpoints import run_item
from satmip_jax.checkpoints.integrity import named_leaves
from satmip_jax.checkpoints.safetensors_file import read_tensors
from satmip_jax.config.conversion import from_json
from satmip_jax.config.validation import validate
from satmip_jax.data.shard_format import SCHEMA_FILE
from satmip_jax.distributed.sharding import leaf_name
from satmip_jax.distributed.target import Target
from satmip_jax.errors import ConfigError, SatmipError
from satmip_jax.evaluation.model import Model, evaluation_mesh, load_model
from satmip_jax.metadata.schema import Schema
from satmip_jax.models import abstract_params, build_towers
from satmip_jax.objectives import build_method
from satmip_jax.runtime.files import FileContentError, read_json_object
from satmip_jax.runtime.paths import local_path

FORMAT = 1  # of an exported folder
WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"


class ModelError(SatmipError, ValueError):
    """A folder from which no model can be loaded; the message says why and what to do."""


def read_model(path: str | PathLike[str]) -> Model:
    """Load encoders and parameters, on all devices.

    Args:
        path: workdir of a run, or a folder written by `satmip export --format safetensors`.

    Raises:
        ModelError: the folder holds no model, or its config is not valid.
        CheckpointError: no checkpoint of the run is intact and fits its config.
        WeightsError: the exported parameters are damaged or do not fit their config.

    Example:
        >>> from satmip_jax.inference.load import read_model
        >>> read_model(workdir).name
        'satmips mu/8'
    """
    folder = local_path(path, "model")
    if (folder / run_item.FOLDER).is_dir():
        return load_model(folder)
    if (folder / WEIGHTS_FILE).is_file():
        return _read_export(folder)
    state = "has neither" if folder.is_dir() else "is no folder: expected one with"
    raise ModelError(
        f"{folder} {state} {run_item.FOLDER}/ (the workdir of `satmip train`) or {WEIGHTS_FILE} "
        "(written by `satmip export --format safetensors`)"
    )


def _read_export(folder: Path) -> Model:
    """Load an exported folder, which may be untrusted: it is checked before anything is allocated.

    The sizes that its config asks for count only once the file of parameters is known to have them.
    """
    for name in (CONFIG_FILE, SCHEMA_FILE):
        if not (folder / name).is_file():
            raise ModelError(f"{folder} has no {name}: copy all files of the exported folder")
    config_file = folder / CONFIG_FILE
    try:
        data = read_json_object(config_file)
        if data.get("format") != FORMAT or not isinstance(data.get("config"), dict):
            raise ModelError(
                f"{config_file} is not the config of a whole model, format {FORMAT}: load a folder "
                "written by `satmip export --format safetensors` of this version"
            )
        config = from_json(json.dumps(data["config"]))
        validate(config)
    except (ConfigError, FileContentError) as error:
        raise ModelError(f"{config_file}: {error}") from error
    schema = Schema.load(folder / SCHEMA_FILE)
    mesh = evaluation_mesh(config)
    try:
        towers = build_towers(config, schema, build_method(config), Target.of(mesh))
        abstract = abstract_params(config, towers, schema, mesh)
    except ValueError as error:  # of layers, for sizes that do not fit each other
        raise ModelError(f"{config_file}: {error}") from error
    shapes = {name: leaf.shape for name, leaf in named_leaves(abstract).items()}
    tensors = read_tensors(folder / WEIGHTS_FILE, shapes)

    def place(path: Any, leaf: Any) -> jax.Array:
        return jax.device_put(tensors.pop(leaf_name(path)), leaf.sharding)

    params = jax.tree_util.tree_map_with_path(place, abstract)
    step, planned = (_steps(data, key, config_file) for key in ("step", "planned"))
    return Model(config, schema, towers, params, mesh, step, planned)


def _steps(data: dict[str, Any], key: str, file: Path) -> int | None:
    """Return a number of steps, or None where it is unknown."""
    value = data.get(key)
    if value is not None and (type(value) is not int or not 0 <= value < 2**53):
        raise ModelError(f"{file}: {key} is {value!r:.80}: expected a number of steps, or null")
    return value
