"""Reductions over all pairs of a global batch, of which no more than a tile is ever in memory.

Every device keeps its rows while the columns go round the ring of devices; within a visit, rows and
columns are met tile by tile. What is summed up per column travels with the columns and is home
after a full turn. The backward pass goes round once more and scores each tile again.

Memory is that of the embeddings and a few tiles of `TILE` x `TILE` numbers, on one device as on
many. Time: two matrix products of all pairs for each pass, where the naive formula has one forward
and two backward; of rows against themselves one and two, as the scores are symmetric.

Sources: Liu et al. 2023 (Ring Attention) and Dao et al. 2022 (FlashAttention) for the online
log-sum-exp; Cheng et al. 2024 (Inf-CL) for contrastive losses in tiles.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from satmip_jax.distributed.sharding import BATCH
from satmip_jax.losses.reductions import MASKED, Reduction, scores

Array = jax.Array
PyTree = Any
Side = tuple[Array, ...]  # embeddings, and what else a tile must know of its rows or columns
# (scores, rows, columns, sums of the rows, sums of the columns) -> the new sums
Tile = Callable[[Array, Side, Side, PyTree, PyTree], tuple[PyTree, PyTree]]

TILE = 1024  # 4 MiB of scores: in a CPU's cache, and enough work for an accelerator


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def ring_pairs(x: Array, y: Array, reduction: Reduction, period: int, tile: int = TILE) -> PyTree:
    """Reduce the scores `x . y` over the columns and over the rows; call it inside `shard_map`.

    Args:
        x: (n, d) float32, this device's rows.
        y: (n, d) float32, this device's columns.
        reduction: what is summed up.
        period: a device's own row i and column j are no negatives of each other where i = j modulo
            this number.
        tile: side of the square of scores that is made at once.

    Returns:
        The reduction of each row over all columns of all devices, and of each column over all rows.
    """
    return _pairs_forward(x, y, reduction, period, tile)[0]


def _pairs_forward(
    x: Array, y: Array, reduction: Reduction, period: int, tile: int
) -> tuple[PyTree, PyTree]:
    def add(s: Array, _: Side, __: Side, rows: PyTree, columns: PyTree) -> PyTree:
        return reduction.add(rows, s, 1), reduction.add(columns, s, 0)

    rows, columns = _ring(add, (x,), (y,), reduction.start(x), reduction.start(y), period, tile)
    out = reduction.finish(rows), reduction.finish(columns)
    return out, (x, y, out)


def _pairs_backward(
    reduction: Reduction, period: int, tile: int, kept: PyTree, gradients: PyTree
) -> tuple[Array, Array]:
    x, y, (rows, columns) = kept
    # only the first result has a gradient: the other is the largest score, for the accuracy
    row_side, column_side = (rows[0], gradients[0][0]), (columns[0], gradients[1][0])

    def add(s: Array, row: Side, column: Side, dx: Array, dy: Array) -> tuple[Array, Array]:
        weight = _weight(reduction, s, row, column)
        return dx + _dot(weight, column[0]), dy + _dot(weight.T, row[0])

    return _ring(add, (x, *row_side), (y, *column_side), 0 * x, 0 * y, period, tile)


ring_pairs.defvjp(_pairs_forward, _pairs_backward)


@partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def ring_self(x: Array, reduction: Reduction, period: int, tile: int = TILE) -> PyTree:
    """As `ring_pairs` of rows with themselves: what rows and columns give is the same."""
    return _self_forward(x, reduction, period, tile)[0]


def _self_forward(x: Array, reduction: Reduction, period: int, tile: int) -> tuple[PyTree, PyTree]:
    def add(s: Array, _: Side, __: Side, rows: PyTree, nothing: PyTree) -> PyTree:
        return reduction.add(rows, s, 1), nothing

    rows, _ = _ring(add, (x,), (x,), reduction.start(x), (), period, tile)
    out = reduction.finish(rows)
    return out, (x, out)


def _self_backward(
    reduction: Reduction, period: int, tile: int, kept: PyTree, gradients: PyTree
) -> tuple[Array]:
    x, out = kept
    side = (out[0], gradients[0])

    def add(s: Array, row: Side, column: Side, dx: Array, nothing: PyTree) -> PyTree:
        return dx + _dot(_weight(reduction, s, row, column), column[0]), nothing

    return (_ring(add, (x, *side), (x, *side), 0 * x, (), period, tile)[0],)


ring_self.defvjp(_self_forward, _self_backward)


def _ring(
    add: Tile,
    rows: Side,
    columns: Side,
    row_sums: PyTree,
    column_sums: PyTree,
    period: int,
    tile: int,
) -> tuple[PyTree, PyTree]:
    """Let all columns pass by all rows; returns the sums of the rows and, at home, the columns."""
    n, devices = rows[0].shape[0], lax.axis_size(BATCH)
    to_next = [(i, (i + 1) % devices) for i in range(devices)]
    rows, columns, row_sums, column_sums = jax.tree.map(
        partial(_tiles, tile=min(tile, n)), (rows, columns, row_sums, column_sums)
    )

    def visit(carry: PyTree, hop: Array) -> tuple[PyTree, None]:
        columns, row_sums, column_sums = carry
        row_sums, column_sums = _sweep(
            add, rows, columns, row_sums, column_sums, hop == 0, n, period
        )
        if devices > 1:
            columns, column_sums = lax.ppermute((columns, column_sums), BATCH, to_next)
        return (columns, row_sums, column_sums), None

    carry, _ = lax.scan(visit, (columns, row_sums, column_sums), jnp.arange(devices))
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[:n], carry[1:])


def _sweep(
    add: Tile,
    rows: Side,
    columns: Side,
    row_sums: PyTree,
    column_sums: PyTree,
    at_home: Array,
    n: int,
    period: int,
) -> tuple[PyTree, PyTree]:
    """All tiles of one visit. Leading axes: (tiles, tile, ...)."""
    tiles, tile = rows[0].shape[:2]
    within = jnp.arange(tile)

    def one_row(sums: PyTree, row: PyTree) -> tuple[PyTree, None]:
        number, row_side = row
        row_sums, column_sums = sums
        i = number * tile + within

        def one_tile(row_sum: PyTree, column: PyTree) -> tuple[PyTree, PyTree]:
            number, column_side, column_sum = column
            j = number * tile + within
            own = at_home & (i[:, None] % period == j[None] % period)
            padding = (i[:, None] >= n) | (j[None] >= n)
            s = jnp.where(own | padding, jnp.float32(MASKED), scores(row_side[0], column_side[0]))
            return add(s, row_side, column_side, row_sum, column_sum)

        row_sum = jax.tree.map(lambda a: a[number], row_sums)
        row_sum, column_sums = lax.scan(
            one_tile, row_sum, (jnp.arange(tiles), columns, column_sums)
        )
        # written in place: as inputs and outputs of the loop they would be in memory twice
        row_sums = jax.tree.map(lambda a, new: a.at[number].set(new), row_sums, row_sum)
        return (row_sums, column_sums), None

    sums, _ = lax.scan(one_row, (row_sums, column_sums), (jnp.arange(tiles), rows))
    return sums


def _tiles(a: Array, tile: int) -> Array:
    """(n, ...) -> (tiles, tile, ...), filled up with zeros."""
    padding = -a.shape[0] % tile
    a = jnp.pad(a, [(0, padding)] + [(0, 0)] * (a.ndim - 1))
    return a.reshape(-1, tile, *a.shape[1:])


def _weight(reduction: Reduction, s: Array, row: Side, column: Side) -> Array:
    """Gradient of the loss by the scores of a tile, from both sides' (_, result, gradient)."""
    weight = row[2][:, None] * reduction.slope(s, row[1][:, None])
    return weight + column[2][None] * reduction.slope(s, column[1][None])


def _dot(a: Array, b: Array) -> Array:
    # (i, j) . (j, d) -> (i, d)
    return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)
