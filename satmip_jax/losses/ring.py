"""Reductions over all pairs of a global batch with no more than one tile of scores in memory.

Every device keeps its rows while the columns travel round the ring of devices. On each hop the
scores are computed tile by tile. The state of each column's reduction follows one hop behind the
column: what a device adds is merged after its tiles, so that columns and states are under way while
tiles are scored. The backward pass makes a second turn and scores each tile again.

Memory is that of the embeddings and a few tiles of `TILE` x `TILE` numbers, on one device as on
many. Time, in matrix products of all pairs: one forward and three backward, where the naive formula
needs one and two. For rows against themselves it is one and two, because the scores are symmetric.

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
from jaxtyping import Array, Bool, Float32

from satmip_jax.distributed.sharding import BATCH
from satmip_jax.losses.reductions import MASKED, Reduction, Results, scores

PyTree = Any
# Arrays with one entry per row (or column): the embeddings first, then what a tile needs of them.
Side = tuple[Array, ...]
# (scores, rows, columns, state of the rows, state of the columns) -> the new states
Tile = Callable[[Array, Side, Side, PyTree, PyTree], tuple[PyTree, PyTree]]

TILE = 1024  # 4 MiB of scores: fits a CPU's cache, and keeps an accelerator busy


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def ring_pairs(
    x: Float32[Array, "n d"],
    y: Float32[Array, "n d"],
    reduction: Reduction,
    period: int,
    tile: int = TILE,
) -> tuple[Results, Results]:
    """Reduce the scores `x . y` over the columns and over the rows; call it inside `shard_map`.

    Args:
        x: this device's rows.
        y: this device's columns.
        reduction: the reduction of each row and each column.
        period: row i and column j of the same device are not negatives of each other if i = j
            modulo this number. With n it excludes the positive pairs.
        tile: side of the square of scores that is computed at once.

    Returns:
        The results of each row over all columns of all devices, and of each column over all rows of
        all devices, each of shape (n,).
    """
    return _pairs_forward(x, y, reduction, period, tile)[0]


def _pairs_forward(
    x: Array, y: Array, reduction: Reduction, period: int, tile: int
) -> tuple[PyTree, PyTree]:
    def update(s: Array, _: Side, __: Side, rows: PyTree, columns: PyTree) -> PyTree:
        return reduction.update(rows, s, 1), reduction.update(columns, s, 0)

    rows, columns = _ring(
        update,
        jax.vmap(reduction.merge),
        (x,),
        (y,),
        reduction.init(x),
        reduction.init(y),
        period,
        tile,
    )
    results = reduction.finalize(rows), reduction.finalize(columns)
    return results, (x, y, results)


def _pairs_backward(
    reduction: Reduction, period: int, tile: int, residuals: PyTree, gradients: PyTree
) -> tuple[Array, Array]:
    x, y, (rows, columns) = residuals
    # Only the first result has a gradient; the largest score, used for the accuracy, has none.
    row_side, column_side = (rows[0], gradients[0][0]), (columns[0], gradients[1][0])

    def update(s: Array, row: Side, column: Side, dx: Array, dy: Array) -> tuple[Array, Array]:
        ds = _score_gradient(reduction, s, row, column)  # (i, j)
        return dx + _dot(ds, column[0]), dy + _dot(ds.T, row[0])

    return _ring(update, jnp.add, (x, *row_side), (y, *column_side), 0 * x, 0 * y, period, tile)


ring_pairs.defvjp(_pairs_forward, _pairs_backward)


@partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def ring_self(
    x: Float32[Array, "n d"], reduction: Reduction, period: int, tile: int = TILE
) -> Results:
    """Reduce the scores of rows with themselves, where rows and columns give the same results.

    Args:
        x: this device's rows.
        reduction: the reduction of each row.
        period: see `ring_pairs`.
        tile: side of the square of scores that is computed at once.

    Returns:
        The results of each row over all rows of all devices, each of shape (n,).
    """
    return _self_forward(x, reduction, period, tile)[0]


def _self_forward(x: Array, reduction: Reduction, period: int, tile: int) -> tuple[PyTree, PyTree]:
    def update(s: Array, _: Side, __: Side, rows: PyTree, empty: PyTree) -> PyTree:
        return reduction.update(rows, s, 1), empty

    rows, _ = _ring(update, _no_state, (x,), (x,), reduction.init(x), (), period, tile)
    results = reduction.finalize(rows)
    return results, (x, results)


def _self_backward(
    reduction: Reduction, period: int, tile: int, residuals: PyTree, gradients: PyTree
) -> tuple[Array]:
    x, results = residuals
    side = (results[0], gradients[0])

    def update(s: Array, row: Side, column: Side, dx: Array, empty: PyTree) -> PyTree:
        return dx + _dot(_score_gradient(reduction, s, row, column), column[0]), empty

    return (_ring(update, _no_state, (x, *side), (x, *side), 0 * x, (), period, tile)[0],)


ring_self.defvjp(_self_forward, _self_backward)


def _no_state(*_: PyTree) -> tuple[()]:
    """Merge the states of columns without any."""
    return ()


def _ring(
    update: Tile,
    merge: Callable[[PyTree, PyTree], PyTree],
    rows: Side,
    columns: Side,
    row_state: PyTree,
    column_state: PyTree,
    period: int,
    tile: int,
) -> tuple[PyTree, PyTree]:
    """Send all columns past all rows; return the states of this device's rows and columns.

    Both states are given as they are before the first tile. `merge` joins two states of columns.
    """
    n, devices = rows[0].shape[0], lax.axis_size(BATCH)
    to_next = [(i, (i + 1) % devices) for i in range(devices)]
    rows, columns, row_state, no_tiles = jax.tree.map(
        partial(_to_tiles, tile=min(tile, n)), (rows, columns, row_state, column_state)
    )

    def send(x: PyTree) -> PyTree:
        return lax.ppermute(x, BATCH, to_next) if devices > 1 else x

    def visit(carry: PyTree, hop: Array) -> tuple[PyTree, None]:
        columns, row_state, last = carry  # `last` belongs to the columns of the hop before
        following, arriving = send(columns), send(last)  # under way while the tiles are scored
        row_state, added = _score_tiles(
            update, rows, columns, row_state, no_tiles, hop == 0, n, period
        )
        return (following, row_state, merge(arriving, added)), None

    start = columns, row_state, no_tiles
    (_, row_state, last), _ = lax.scan(visit, start, jnp.arange(devices))
    # (tiles, tile, ...) -> (n, ...), without the padding
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[:n], (row_state, send(last)))


def _score_tiles(
    update: Tile,
    rows: Side,
    columns: Side,
    row_state: PyTree,
    column_state: PyTree,
    same_device: Bool[Array, ""],
    n: int,
    period: int,
) -> tuple[PyTree, PyTree]:
    """Score all tiles of one hop and update both states. All arrays are (tiles, tile, ...)."""
    tiles, tile = rows[0].shape[:2]
    within = jnp.arange(tile)

    def one_row(states: PyTree, row: PyTree) -> tuple[PyTree, None]:
        number, row_side = row
        row_state, column_state = states
        i = number * tile + within

        def one_tile(row_state: PyTree, column: PyTree) -> tuple[PyTree, PyTree]:
            number, column_side, column_state = column
            j = number * tile + within
            excluded = same_device & (i[:, None] % period == j[None] % period)
            padding = (i[:, None] >= n) | (j[None] >= n)
            s = scores(row_side[0], column_side[0])  # (i, d) . (j, d) -> (i, j)
            s = jnp.where(excluded | padding, jnp.float32(MASKED), s)
            return update(s, row_side, column_side, row_state, column_state)

        state = jax.tree.map(lambda a: a[number], row_state)
        state, column_state = lax.scan(one_tile, state, (jnp.arange(tiles), columns, column_state))
        # Updated in place: as input and output of the loop the state would be in memory twice.
        row_state = jax.tree.map(lambda a, new: a.at[number].set(new), row_state, state)
        return (row_state, column_state), None

    states, _ = lax.scan(one_row, (row_state, column_state), (jnp.arange(tiles), rows))
    return states


def _to_tiles(a: Array, tile: int) -> Array:
    """Reshape (n, ...) to (tiles, tile, ...), padded with zeros."""
    padding = -a.shape[0] % tile
    a = jnp.pad(a, [(0, padding)] + [(0, 0)] * (a.ndim - 1))
    return a.reshape(-1, tile, *a.shape[1:])


def _score_gradient(
    reduction: Reduction, s: Float32[Array, "i j"], row: Side, column: Side
) -> Float32[Array, "i j"]:
    """Return the gradient of the loss with respect to the scores of a tile.

    Both sides are (embeddings, first result, its gradient).
    """
    gradient = row[2][:, None] * reduction.derivative(s, row[1][:, None])
    return gradient + column[2][None] * reduction.derivative(s, column[1][None])


def _dot(a: Float32[Array, "i j"], b: Float32[Array, "j d"]) -> Float32[Array, "i d"]:
    """Multiply matrices in full float32."""
    return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)  # (i, j) . (j, d) -> (i, d)
