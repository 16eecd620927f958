"""The model of a run, loaded for evaluation: encoders and parameters, without an optimizer."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from satmip_jax.checkpoints.manager import Checkpoints
from satmip_jax.config.training_length import total_steps
from satmip_jax.distributed.sharding import make_mesh
from satmip_jax.distributed.target import Target
from satmip_jax.metadata.schema import Schema
from satmip_jax.models import Towers, abstract_params, build_towers, init_params
from satmip_jax.objectives import build_method

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Model:
    """Encoders with their parameters, placed on a mesh.

    Attributes:
        config: the model was trained with.
        schema: of the data it was trained on: its statistics and vocabularies encode metadata.
        towers: encoders and heads.
        params: of the towers; replicated, or sharded along `fsdp`.
        mesh: devices that hold the parameters, and over which batches are sharded.
        step: of the checkpoint that the parameters are from; None for others.
        planned: number of steps of the complete training, if it is known.
        encoders: compiled encoders by side of the stored images, kept by `features.make_encoder`;
            `replace(model, params=...)` shares them.
    """

    config: ConfigDict
    schema: Schema
    towers: Towers
    params: Any
    mesh: Mesh
    step: int | None = None
    planned: int | None = None
    encoders: dict[int, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def name(self) -> str:
        """Method and image encoder, such as "satmip vit_small/16"."""
        return f"{self.config.method.name} {self.config.image.encoder}"


def load_model(workdir: str | Path, *, init: str = "trained") -> Model:
    """Load the model of a run, on all devices.

    Only the parameters are read from the checkpoint. They are sharded as in training where
    `config.parallel.fsdp` divides the number of devices here, and replicated otherwise.

    Args:
        workdir: folder of the run.
        init: "trained" for the newest intact checkpoint, "random" for the parameters that training
            started from.

    Raises:
        CheckpointError: there is no checkpoint, or none that is intact and fits its config.

    Example:
        >>> from satmip_jax.evaluation.model import load_model
        >>> model = load_model(workdir)
        >>> model.name
        'satmips mu/8'
    """
    with Checkpoints(workdir, read_only=True) as checkpoints:
        config, schema = checkpoints.run()
        mesh = evaluation_mesh(config)
        towers = build_towers(config, schema, build_method(config), Target.of(mesh))
        abstract = abstract_params(config, towers, schema, mesh)
        if init == "random":
            shardings = jax.tree.map(lambda x: x.sharding, abstract)
            init_on_mesh = jax.jit(
                lambda: init_params(config, towers, schema), out_shardings=shardings
            )
            params = init_on_mesh()
        else:
            params = checkpoints.restore_params(abstract)
        step = checkpoints.restored
    examples = schema.splits.get(config.data.train_split)
    planned = total_steps(config, examples) if examples else None
    return Model(config, schema, towers, params, mesh, step, planned)


def evaluation_mesh(config: ConfigDict) -> Mesh:
    """Return a mesh over all devices, with the run's `fsdp` if it divides their number, else 1."""
    devices, fsdp = jax.device_count(), config.parallel.fsdp
    if devices % fsdp:
        log.warning(
            "config.parallel.fsdp is %d, which does not divide the %d device(s) here: "
            "parameters are replicated",
            fsdp,
            devices,
        )
        fsdp = 1
    return make_mesh(fsdp=fsdp)
