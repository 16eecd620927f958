"""Loading of a trained model: the workdir of its run, an exported folder, or a shipped model."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from satmip_jax import pretrained
from satmip_jax.checkpoints import run_item
from satmip_jax.checkpoints.integrity import named_leaves
from satmip_jax.checkpoints.manager import Checkpoints
from satmip_jax.checkpoints.safetensors_file import read_tensors
from satmip_jax.config.conversion import from_json
from satmip_jax.config.training_length import total_steps
from satmip_jax.config.validation import validate
from satmip_jax.data.remote_cache import mirror
from satmip_jax.data.shard_format import SCHEMA_FILE
from satmip_jax.distributed.sharding import leaf_name
from satmip_jax.distributed.target import Target
from satmip_jax.errors import ConfigError, SatmipError
from satmip_jax.evaluation.model import Model, evaluation_mesh
from satmip_jax.metadata.schema import Schema
from satmip_jax.models import Towers, abstract_params, build_towers, init_params
from satmip_jax.objectives import build_method
from satmip_jax.runtime.files import FileContentError, read_json_object
from satmip_jax.runtime.paths import AnyPath, as_path, is_remote, local_path
from satmip_jax.runtime.stores import check_access

FORMAT = 1  # of an exported folder
WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"


class ModelError(SatmipError, ValueError):
    """A folder from which no model can be loaded; the message says why and what to do."""


def load_model(path: str | PathLike[str], *, init: str = "trained") -> Model:
    """Load encoders and parameters, on all devices.

    Parameters are sharded as in training where `config.parallel.fsdp` divides the number of devices
    here, and replicated otherwise.

    Args:
        path: workdir of a run, or a folder written by `satmip export --format safetensors`, on a
            disk or in a bucket; or the name of a model in `pretrained.MODELS`; a folder of that
            name comes first.
        init: "trained" for the parameters of the newest intact checkpoint or of the export,
            "random" for those drawn from the run's seed, from which training started if it began
            without `--init`.

    Raises:
        ModelError: there is no model, or its config is not valid.
        CheckpointError: no checkpoint of the run is intact and fits its config.
        WeightsError: the exported parameters are damaged or do not fit their config.

    Example:
        >>> from satmip_jax.evaluation.loading import load_model
        >>> load_model(workdir).name
        'satmips mu/8'
    """
    folder = model_folder(path)
    if (folder / run_item.FOLDER).is_dir():
        return replace(_load_run(folder, init), folder=folder)
    return replace(_load_export(folder, init), folder=folder)


def model_folder(path: str | PathLike[str]) -> AnyPath:
    """Return the folder of a model, see `load_model`.

    Raises:
        ModelError: there is no model.
        StoreError: it is in a bucket that cannot be accessed.
    """
    folder = as_path(path)
    check_access(folder)
    if any((folder / name).exists() for name in (run_item.FOLDER, WEIGHTS_FILE)):
        return folder
    if os.fspath(path) in pretrained.MODELS:
        return pretrained.folder(os.fspath(path))
    if folder.is_dir():
        raise ModelError(
            f"{folder} has no checkpoints (train first: `satmip train --workdir {folder}`), and no "
            f"{WEIGHTS_FILE} (written by `satmip export --format safetensors`)"
        )
    raise ModelError(
        f"no model {os.fspath(path)}: give the workdir of a run, a folder written by `satmip "
        f"export --format safetensors`, or one of {', '.join(pretrained.MODELS)}"
    )


def holds_model(path: str | PathLike[str]) -> bool:
    """Return whether a path is that of a model which `load_model` loads, as far as names tell.

    Example:
        >>> from satmip_jax.evaluation.loading import holds_model
        >>> holds_model(workdir), holds_model("dinov2.safetensors")
        (True, False)
    """
    folder = as_path(path)
    if folder.exists():
        return (folder / run_item.FOLDER).is_dir() or (folder / SCHEMA_FILE).is_file()
    return os.fspath(path) in pretrained.MODELS


def _load_run(folder: AnyPath, init: str) -> Model:
    """Load the model of a run; of its checkpoint only the parameters are read."""
    with Checkpoints(folder, read_only=True) as checkpoints:
        config, schema = checkpoints.run()
        mesh = evaluation_mesh(config)
        towers = build_towers(config, schema, build_method(config), Target.of(mesh))
        abstract = abstract_params(config, towers, schema, mesh)
        if init == "random":
            params = _initial_params(config, towers, schema, abstract)
        else:
            params = checkpoints.restore_params(abstract)
        step = checkpoints.restored
    examples = schema.splits.get(config.data.train_split)
    planned = total_steps(config, examples) if examples else None
    return Model(config, schema, towers, params, mesh, step, planned)


def _initial_params(config: ConfigDict, towers: Towers, schema: Schema, abstract: Any) -> Any:
    shardings = jax.tree.map(lambda x: x.sharding, abstract)
    return jax.jit(lambda: init_params(config, towers, schema), out_shardings=shardings)()


def _local_export(folder: AnyPath) -> Path:
    """Return an exported folder, or the copy in the cache of one in a bucket."""
    for name in (CONFIG_FILE, SCHEMA_FILE):
        if not (folder / name).is_file():
            raise ModelError(f"{folder} has no {name}: copy all files of the exported folder")
    if is_remote(folder):
        return mirror(folder, (CONFIG_FILE, SCHEMA_FILE, WEIGHTS_FILE), b"exported model")
    return local_path(folder, "exported model")


def _load_export(exported: AnyPath, init: str) -> Model:
    """Load an exported folder, which may be untrusted: it is checked before anything is allocated.

    The sizes that its config asks for count only once the file of parameters is known to have them.
    """
    folder = _local_export(exported)
    config_file = folder / CONFIG_FILE
    data, config = read_export_config(config_file)
    schema = Schema.load(folder / SCHEMA_FILE)
    mesh = evaluation_mesh(config)
    try:
        towers = build_towers(config, schema, build_method(config), Target.of(mesh))
        abstract = abstract_params(config, towers, schema, mesh)
    except ValueError as error:  # of layers, for sizes that do not fit each other
        raise ModelError(f"{config_file}: {error}") from error
    shapes = {name: leaf.shape for name, leaf in named_leaves(abstract).items()}
    tensors = read_tensors(folder / WEIGHTS_FILE, shapes)
    if init == "random":
        params = _initial_params(config, towers, schema, abstract)
        return Model(config, schema, towers, params, mesh)

    def place(path: Any, leaf: Any) -> jax.Array:
        return jax.device_put(tensors.pop(leaf_name(path)), leaf.sharding)

    params = jax.tree_util.tree_map_with_path(place, abstract)
    step, planned = (_steps(data, key, config_file) for key in ("step", "planned"))
    return Model(config, schema, towers, params, mesh, step, planned)


def read_export_config(file: Path) -> tuple[dict[str, Any], ConfigDict]:
    """Return what config.json of an exported folder says, and the config of the training in it.

    Raises:
        ModelError: it is not that of a whole model, or not valid.
    """
    try:
        data = read_json_object(file)
        if data.get("format") != FORMAT or not isinstance(data.get("config"), dict):
            raise ModelError(
                f"{file} is not the config of a whole model, format {FORMAT}: load a folder "
                "written by `satmip export --format safetensors` of this version"
            )
        config = from_json(json.dumps(data["config"]))
        validate(config)
    except (ConfigError, FileContentError) as error:
        raise ModelError(f"{file}: {error}") from error
    return data, config


def _steps(data: dict[str, Any], key: str, file: Path) -> int | None:
    """Return a number of steps, or None where it is unknown."""
    value = data.get(key)
    if value is not None and (type(value) is not int or not 0 <= value < 2**53):
        raise ModelError(f"{file}: {key} is {value!r:.80}: expected a number of steps, or null")
    return value
