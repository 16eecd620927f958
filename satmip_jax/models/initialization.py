"""Initial parameters: a function of the config, its seed and the schema of the data."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from satmip_jax.distributed.sharding import shapes_with_shardings
from satmip_jax.metadata.schema import Schema
from satmip_jax.models.towers import Towers, example_batch

PyTree = Any


def init_params(config: ConfigDict, towers: Towers, schema: Schema) -> PyTree:
    """Return the initial parameters, a function of `config.seed`.

    Training starts from them, and the untrained twin of a run is scored with them. The function can
    be traced: wrap it in `jax.jit` to place the parameters, or in `jax.eval_shape` for shapes.

    Args:
        config: of the run; its seed, image size and metadata options are used.
        towers: from `build_towers` with the same config and schema.
        schema: of the prepared data.

    Returns:
        Nested dictionary of float32 arrays, the collection "params" of the towers.
    """
    # Step n draws from the seed's key, folded with n: this is a number that no step has.
    key = jax.random.fold_in(jax.random.key(config.seed), np.uint32(2**32 - 1))
    return towers.init(key, *example_batch(config, schema))["params"]


def abstract_params(config: ConfigDict, towers: Towers, schema: Schema, mesh: Mesh) -> PyTree:
    """Return shapes, dtypes and shardings of the parameters; nothing is computed.

    Args:
        config: of the run.
        towers: from `build_towers` with the same config and schema.
        schema: of the prepared data.
        mesh: devices over which the parameters are sharded, by `distributed.sharding.RULES`.

    Returns:
        The tree of `init_params`, of `jax.ShapeDtypeStruct` with shardings.
    """
    shapes = jax.eval_shape(lambda: init_params(config, towers, schema))
    return shapes_with_shardings({"params": shapes}, mesh)["params"]  # names as in a checkpoint
