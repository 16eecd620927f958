"""Rows of a batch: padding to one shape, functions compiled for it, and scaling to length 1."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from satmip_jax.distributed.sharding import batch_sharding, replicated
from satmip_jax.evaluation.model import Model

OfRows = Callable[[Any, Any], jax.Array]  # (params, batch) -> rows


def jit_rows(function: OfRows, model: Model) -> OfRows:
    """Return a compiled function of a model's parameters and a batch sharded over its mesh.

    Args:
        function: (params, batch) -> rows.
        model: its parameters, or others of the same shapes and shardings, are the first argument.

    Returns:
        The function; its result is replicated.
    """
    inputs = (jax.tree.map(lambda x: x.sharding, model.params), batch_sharding(model.mesh))
    return jax.jit(function, in_shardings=inputs, out_shardings=replicated(model.mesh))


def padded(x: np.ndarray, size: int) -> np.ndarray:
    """Repeat the first row of an array until there are `size` rows.

    Args:
        x: at least one row, at most `size`.
        size: number of rows of the result.

    Example:
        >>> from satmip_jax.evaluation.row_batches import padded
        >>> padded(np.array([[1], [2]]), 4).tolist()
        [[1], [2], [1], [1]]
    """
    x = np.asarray(x)
    return np.concatenate([x, np.repeat(x[:1], size - len(x), axis=0)])


def unit_rows(rows: np.ndarray) -> np.ndarray:
    """Return the rows scaled to length 1, float32; a row of zeros stays.

    Example:
        >>> from satmip_jax.evaluation.row_batches import unit_rows
        >>> unit_rows(np.array([[3.0, 4.0], [0.0, 0.0]])).round(1).tolist()
        [[0.6..., 0.8...], [0.0, 0.0]]
    """
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(length > 0, length, 1), np.float32)
