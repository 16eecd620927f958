"""Start of a training from pretrained weights of the image encoder, or from a model's.

The weights are part of the config, `image.init`, by family and digest. So the checkpoints, exports
and reports of a run name them, and a run resumes without them.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from os import PathLike
from typing import Any, TypeAlias

import jax
import numpy as np
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from satmip_jax.checkpoints.published_file import (
    PretrainedWeights,
    file_identity,
    identity,
    read_pretrained,
)
from satmip_jax.checkpoints.run_item import saved_steps
from satmip_jax.checkpoints.safetensors_file import WeightsError
from satmip_jax.config.conversion import vary
from satmip_jax.distributed import multihost
from satmip_jax.distributed.multihost import is_main_process
from satmip_jax.errors import ConfigError
from satmip_jax.evaluation.loading import holds_model, load_model
from satmip_jax.evaluation.model import Model
from satmip_jax.models.published_vit import check_options, check_shapes, from_timm
from satmip_jax.models.timm_weights import to_timm
from satmip_jax.models.towers import build_image_encoder
from satmip_jax.models.vit import ViT
from satmip_jax.runtime.files import write_atomically
from satmip_jax.runtime.paths import AnyPath, local_path
from satmip_jax.training.step import Program, TrainState
from satmip_jax.training.workdir import INIT_FILE, stored_config

log = logging.getLogger(__name__)

Source: TypeAlias = str | PathLike[str] | Model


def read_weights(
    source: Source | None, config: ConfigDict, workdir: AnyPath
) -> tuple[ConfigDict, PretrainedWeights | None]:
    """Read the weights that a run starts from, and name them in its config.

    Args:
        source: a safetensors file, its folder, or a model of this package or what `load_model`
            loads it from; None for none.
        config: of the run, the same on all processes.
        workdir: of the run. Where it has checkpoints, weights are not needed any more: without
            them, the config is that of the run, and others are refused by `claim_workdir`.

    Returns:
        The config with `image.init`; and the weights, or None if the run does not start with them.

    Raises:
        WeightsError: the weights cannot be read or do not fit `config.image`.
        ProcessError: the processes have different weights.
        ConfigError: `config.image.init` is given, without the weights.
    """
    begun = multihost.broadcast_str("begun" if saved_steps(workdir) else "") == "begun"
    if source is not None and not isinstance(source, Model) and holds_model(source):
        source = load_model(source)
    weights: PretrainedWeights | None = None
    if begun:
        name = _resumed_name(source, config.image.init, stored_config(workdir))
    elif source is None:
        if config.image.init:
            raise ConfigError(
                f"config.image.init is {config.image.init!r}: it is set by --init FILE; give that"
            )
        name = ""
    else:
        encoder = build_image_encoder(config)
        if isinstance(source, Model):
            weights = weights_of(source, encoder)
        else:
            weights = read_pretrained(local_path(source, "--init"), encoder)
        name = weights.identity
    # on all processes, whether or not they have the file: others would wait for them
    multihost.require_on_all_processes(
        multihost.broadcast_str(name) == name,
        f"the weights of --init ({name or 'none'}) differ from those of process 0: copy one file "
        "to all hosts",
    )
    return vary(config, {"image.init": name}), weights


def _resumed_name(source: Source | None, given: str, stored: ConfigDict | None) -> str:
    """Return the name of the weights that a run with checkpoints is asked to have begun with."""
    began_with = "" if stored is None else stored.image.init
    if source is None:
        return given or began_with
    if isinstance(source, Model):
        return identity("satmip", _digest(_state(source)))
    if local_path(source, "--init").exists():
        return file_identity(source)
    log.info(f"{source} is not there, and not needed: the run has checkpoints")
    return began_with


def weights_of(model: Model, encoder: ViT) -> PretrainedWeights:
    """Return the weights of a model's image encoder for another one.

    Args:
        model: of this package.
        encoder: that they are for.

    Raises:
        WeightsError: they do not fit.
    """
    theirs, state, schema = build_image_encoder(model.config), _state(model), model.schema
    source = model.name + ("" if model.step is None else f" at step {model.step}")
    try:
        notes = check_shapes({name: x.shape for name, x in state.items()}, encoder)
        notes += check_options(theirs.heads, theirs.activation, encoder)
    except ValueError as error:
        raise WeightsError(f"the weights of {source} cannot be used: {error}") from error
    mean, std = tuple(map(float, schema.image_mean)), tuple(map(float, schema.image_std))
    left_out = {
        name: "not of the image encoder" for name in model.params if name != "image_encoder"
    }
    return PretrainedWeights(
        "satmip",
        source,
        _digest(state),
        state,
        (mean, std),
        "by its schema.json",
        {},
        left_out,
        notes,
    )


def _state(model: Model) -> dict[str, np.ndarray]:
    params = model.params["image_encoder"]
    if jax.process_count() > 1:
        params = multihost_utils.process_allgather(params, tiled=True)
    return to_timm(jax.device_get(params), build_image_encoder(model.config))


def _digest(state: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name, array in sorted(state.items()):
        digest.update(name.encode() + np.ascontiguousarray(array, np.float32).tobytes())
    return digest.hexdigest()


def start_from(
    weights: PretrainedWeights, program: Program, state: TrainState, workdir: AnyPath
) -> TrainState:
    """Return an initial state whose image encoder has the weights; record them in the workdir.

    Args:
        weights: that fit the image encoder of `program`.
        program: of the run.
        state: its initial state.
        workdir: of the run.
    """
    schema, encoder = program.schema, program.towers.image_encoder
    assert isinstance(encoder, ViT)
    statistics = (schema.image_mean, schema.image_std)
    params = from_timm(
        weights.state, encoder, program.config.image.size, weights.statistics, statistics
    )
    if jax.process_count() > 1:  # processors round differently, so all take the result of process 0
        params = multihost_utils.broadcast_one_to_all(params)

    def place(old: jax.Array, new: np.ndarray) -> jax.Array:
        array = np.asarray(new, old.dtype).reshape(old.shape)
        return jax.make_array_from_callback(old.shape, old.sharding, lambda index: array[index])

    placed = jax.tree.map(place, state.params["image_encoder"], params)
    if is_main_process():
        write_atomically(workdir / INIT_FILE, json.dumps(_record(weights), indent=2) + "\n")
    _describe(weights)
    return replace(state, params={**state.params, "image_encoder": placed})


def _record(weights: PretrainedWeights) -> dict[str, Any]:
    mean, std = weights.statistics
    return {
        "family": weights.family,
        "source": weights.source,
        "sha256": weights.digest,
        "mean": mean,
        "std": std,
        "mean_and_std": weights.statistics_from,
        "notes": [*weights.notes],
        "used": {name: [*sources] for name, sources in weights.sources.items()},
        "left_out": {**weights.left_out},
    }


def _describe(weights: PretrainedWeights) -> None:
    mean, std = (", ".join(f"{x:g}" for x in values) for values in weights.statistics)
    lines = [
        f"image encoder initialized from {weights.source} ({weights.family}), "
        f"{len(weights.state)} parameters; SHA-256 {weights.digest}",
        f"pixels are expected with mean {mean} and deviation {std}, stated "
        f"{weights.statistics_from}: the difference to this data is folded into the first layer",
    ]
    reasons = sorted({*weights.left_out.values()})
    if reasons:
        lines.append(f"{len(weights.left_out)} other tensors are left out: {', '.join(reasons)}")
    log.info("\n  ".join([*lines, *weights.notes]))
