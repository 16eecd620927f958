"""Interpolation of learned position embeddings to another grid of patches."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32


def resize_positions(
    positions: Float[Array, "tokens width"],
    old_grid: tuple[int, int],
    new_grid: tuple[int, int],
    prefix_tokens: int = 0,
) -> Float32[Array, "new_tokens width"]:
    """Interpolate position embeddings, bicubic with antialiasing; equal to timm's.

    Args:
        positions: of the prefix tokens, then of the patches row by row.
        old_grid: rows and columns of the patches that `positions` are for.
        new_grid: rows and columns to interpolate to.
        prefix_tokens: number of leading rows that belong to no patch, such as that of the class
            token; they are kept.

    Raises:
        ValueError: the number of rows is not that of `old_grid` and `prefix_tokens`, or a side of
            `new_grid` is not positive.

    Source:
        timm's `resample_abs_pos_embed`.

    Example:
        >>> from satmip_jax.models.position_resize import resize_positions
        >>> resize_positions(jnp.zeros((1 + 14 * 14, 8)), (14, 14), (4, 6), prefix_tokens=1).shape
        (25, 8)
    """
    rows, columns = old_grid
    tokens, width = positions.shape
    if tokens != prefix_tokens + rows * columns:
        raise ValueError(
            f"{tokens} position embeddings are not those of {rows} x {columns} patches and "
            f"{prefix_tokens} other tokens"
        )
    if min(new_grid) < 1:
        raise ValueError(f"the new grid must have positive sides, not {new_grid}")
    positions = jnp.asarray(positions, jnp.float32)
    if old_grid == new_grid:
        return positions
    patches = positions[prefix_tokens:].reshape(rows, columns, width)
    patches = jax.image.resize(patches, (*new_grid, width), "bicubic", antialias=True)
    return jnp.concatenate([positions[:prefix_tokens], patches.reshape(-1, width)])
