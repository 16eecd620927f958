"""A trained model: encoders and parameters on a mesh, without an optimizer."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

from jax.sharding import Mesh
from ml_collections import ConfigDict

from satmip_jax.distributed.sharding import make_mesh
from satmip_jax.errors import ConfigError
from satmip_jax.metadata.schema import Schema
from satmip_jax.models import Towers
from satmip_jax.runtime.paths import AnyPath

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
        folder: that the model was loaded from; None for others.
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
    folder: AnyPath | None = None
    encoders: dict[int, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def name(self) -> str:
        """Method and image encoder, such as "satmip vit_small/16"."""
        return f"{self.config.method.name} {self.config.image.encoder}"


def evaluation_mesh(config: ConfigDict) -> Mesh:
    """Return a mesh over all devices, with the run's `fsdp` if it suits them, else 1."""
    try:
        return make_mesh(fsdp=config.parallel.fsdp)
    except ConfigError as error:
        log.warning("%s; parameters are replicated", error)
        return make_mesh()
