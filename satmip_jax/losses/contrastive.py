"""Contrastive losses over the global batch: InfoNCE, NT-Xent and the sigmoid loss.

There is one exact definition of each. Inputs are global arrays whose rows are sharded over the
mesh. Inside `shard_map` every device scores its rows against those of all devices, so the number of
negatives is that of the global batch, and loss and gradients equal the naive formula on one device.
The exchange decides how a device gets the rows of the others:

* `gather`: an all-gather of the embeddings, with gradient. Fastest while the scores of a device,
  (batch / devices) x batch, fit into memory.
* `ring`: embeddings travel round a ring of devices, and on each hop the scores are computed tile by
  tile (`losses.ring`). No such matrix exists.

Everything here is float32 at full matmul precision, whatever the dtype of the encoders.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Float32

from satmip_jax.distributed.sharding import BATCH
from satmip_jax.losses.reductions import MASKED, LogSumExp, Reduction, Results, SoftPlus, scores
from satmip_jax.losses.ring import ring_pairs, ring_self

LossAndMetrics = tuple[Float32[Array, ""], dict[str, Float32[Array, ""]]]


def normalize(x: Float[Array, "n d"]) -> Float32[Array, "n d"]:
    """Return the rows of `x` at unit length; a zero row stays zero.

    Example:
        >>> from satmip_jax.losses.contrastive import normalize
        >>> normalize(jnp.array([[3.0, 4.0]]))
        Array([[0.6, 0.8]], dtype=float32)
    """
    x = x.astype(jnp.float32)
    return x / jnp.sqrt(jnp.maximum(jnp.sum(x * x, axis=-1, keepdims=True), 1e-12))


def info_nce(
    a: Float[Array, "B d"],
    b: Float[Array, "B d"],
    scale: Float32[Array, ""],
    mesh: Mesh,
    exchange: str = "gather",
) -> LossAndMetrics:
    """Compute the symmetric InfoNCE loss.

    Row i of `a` must identify row i of `b` among all B rows of `b`, and vice versa: each anchor has
    B - 1 negatives.

    Args:
        a: embeddings of one modality, not normalized, sharded over the mesh by rows.
        b: embeddings of the other modality, likewise.
        scale: inverse temperature.
        mesh: the devices that hold the rows.
        exchange: a key of `EXCHANGES`.

    Returns:
        The loss, and `{"accuracy": ...}`: the fraction of anchors whose positive has the highest
        score, averaged over both directions.

    Source: Radford et al. 2021 (CLIP), eq. in fig. 3; van den Oord et al. 2018 (InfoNCE).

    Example:
        >>> from satmip_jax.distributed.sharding import make_mesh
        >>> from satmip_jax.losses.contrastive import info_nce
        >>> a = jnp.eye(8)  # 8 pairs of identical embeddings, orthogonal to each other
        >>> loss, metrics = info_nce(a, a, jnp.float32(10.0), make_mesh())
        >>> loss.round(5), metrics["accuracy"]
        (Array(0.00032, dtype=float32), Array(1., dtype=float32))
    """

    def local(a: Array, b: Array, scale: Array) -> LossAndMetrics:
        a, b = scale * normalize(a), normalize(b)
        positive = jnp.sum(a * b, axis=1)  # (n, d) * (n, d) -> (n,)
        rows, columns = EXCHANGES[exchange].pairs(a, b, LogSumExp(), a.shape[0])
        (row_sum, row_max), (column_sum, column_max) = rows, columns  # (n,) each
        return _cross_entropy((positive, row_sum, row_max), (positive, column_sum, column_max))

    return _on_mesh(local, mesh, (P(BATCH), P(BATCH), P()))(a, b, scale)


def nt_xent(
    first: Float[Array, "B d"],
    second: Float[Array, "B d"],
    temperature: float,
    mesh: Mesh,
    exchange: str = "gather",
) -> LossAndMetrics:
    """Compute NT-Xent: each of the 2 B views must identify its partner among the 2 B - 1 others.

    Args:
        first: embeddings of the first view of each image, not normalized, sharded over the mesh by
            rows.
        second: embeddings of the second view, likewise.
        temperature: > 0.
        mesh: the devices that hold the rows.
        exchange: a key of `EXCHANGES`.

    Returns:
        The loss, and `{"accuracy": ...}`: the fraction of views whose partner has the highest
        score.

    Source: Chen et al. 2020 (SimCLR), eq. 1, mean over all 2 B anchors.

    Example:
        >>> from satmip_jax.distributed.sharding import make_mesh
        >>> from satmip_jax.losses.contrastive import nt_xent
        >>> views = jnp.eye(8)
        >>> loss, metrics = nt_xent(views, views, 0.1, make_mesh())
        >>> loss.round(5), metrics["accuracy"]
        (Array(0.00064, dtype=float32), Array(1., dtype=float32))
    """

    def local(first: Array, second: Array) -> LossAndMetrics:
        n = first.shape[0]
        views = normalize(jnp.concatenate([first, second])) * jnp.float32(temperature**-0.5)
        positive = jnp.sum(views[:n] * views[n:], axis=1)  # (n, d) * (n, d) -> (n,)
        # Row i is neither a negative of itself nor of its other view: period n.
        log_sum, largest = EXCHANGES[exchange].within(views, LogSumExp(), n)  # (2 n,) each
        return _cross_entropy(
            (positive, log_sum[:n], largest[:n]), (positive, log_sum[n:], largest[n:])
        )

    return _on_mesh(local, mesh, (P(BATCH), P(BATCH)))(first, second)


def sigmoid_loss(
    a: Float[Array, "B d"],
    b: Float[Array, "B d"],
    scale: Float32[Array, ""],
    bias: Float32[Array, ""],
    mesh: Mesh,
    exchange: str = "gather",
) -> LossAndMetrics:
    """Compute the sigmoid loss: every pair of the batch is classified as matching or not.

    Args:
        a: embeddings of one modality, not normalized, sharded over the mesh by rows.
        b: embeddings of the other modality, likewise.
        scale: inverse temperature; starts at 10.
        bias: added to all scores; starts at -10.
        mesh: the devices that hold the rows.
        exchange: a key of `EXCHANGES`.

    Returns:
        The loss, which is the sum over all B x B pairs divided by B; and `{"accuracy": ...}`: the
        fraction of matching pairs classified as such (score above 0).

    Source: Zhai et al. 2023 (SigLIP), algorithm 1.

    Example:
        >>> from satmip_jax.distributed.sharding import make_mesh
        >>> from satmip_jax.losses.contrastive import sigmoid_loss
        >>> a, scale, bias = jnp.eye(8), jnp.float32(10.0), jnp.float32(-5.0)
        >>> loss, metrics = sigmoid_loss(a, a, scale, bias, make_mesh())
        >>> loss.round(4), metrics["accuracy"]
        (Array(0.0537, dtype=float32), Array(1., dtype=float32))
    """

    def local(a: Array, b: Array, scale: Array, bias: Array) -> LossAndMetrics:
        a, b = scale * normalize(a), normalize(b)
        positive = jnp.sum(a * b, axis=1) + bias  # (n, d) * (n, d) -> (n,)
        column = jnp.zeros_like(positive)[:, None]  # one more dimension adds the bias to all scores
        a = jnp.concatenate([a, column + bias], axis=1)  # (n, d + 1)
        b = jnp.concatenate([b, column + 1], axis=1)  # (n, d + 1)
        (rows,), (columns,) = EXCHANGES[exchange].pairs(a, b, SoftPlus(), a.shape[0])
        negatives = 0.5 * (rows + columns)  # both sum over the same pairs
        loss = jnp.mean(jax.nn.softplus(-positive) + negatives)
        accuracy = jnp.mean((positive > 0).astype(jnp.float32))
        return lax.pmean((loss, {"accuracy": accuracy}), BATCH)

    return _on_mesh(local, mesh, (P(BATCH), P(BATCH), P(), P()))(a, b, scale, bias)


def _on_mesh(local: Callable[..., LossAndMetrics], mesh: Mesh, specs: tuple[P, ...]) -> Any:
    """Run `local` on the rows of each device; its result is the same on all."""
    return jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=P())


def _cross_entropy(*directions: tuple[Array, Array, Array]) -> LossAndMetrics:
    """Return cross-entropy and accuracy, averaged over anchors, directions and devices.

    Each direction is (score of the positive, log-sum-exp and largest of the negatives' scores),
    each of shape (n,).
    """
    # -log(e^p / (e^p + sum e^s)) = log(1 + e^(log sum e^s - p))
    loss = jnp.mean(
        jnp.stack([jax.nn.softplus(log_sum - positive) for positive, log_sum, _ in directions])
    )
    correct = jnp.stack([positive > largest for positive, _, largest in directions])
    return lax.pmean((loss, {"accuracy": jnp.mean(correct.astype(jnp.float32))}), BATCH)


def gather_pairs(
    x: Float32[Array, "n d"], y: Float32[Array, "n d"], reduction: Reduction, period: int
) -> tuple[Results, Results]:
    """Reduce like `ring.ring_pairs`, with an all-gather of the embeddings."""
    return gather_rows(x, y, reduction, period), gather_rows(y, x, reduction, period)


def gather_self(x: Float32[Array, "n d"], reduction: Reduction, period: int) -> Results:
    """Reduce like `ring.ring_self`, with an all-gather of the embeddings."""
    return gather_rows(x, x, reduction, period)


def gather_rows(
    x: Float32[Array, "n d"], y: Float32[Array, "n d"], reduction: Reduction, period: int
) -> Results:
    """Reduce the scores of this device's rows over the columns of all devices.

    Args:
        x: this device's rows.
        y: this device's columns.
        reduction: the reduction of each row.
        period: see `ring.ring_pairs`.

    Returns:
        The results of the reduction, each of shape (n,).
    """
    columns = lax.all_gather(y, BATCH, tiled=True)  # (n, d) of each device -> (N, d), with gradient
    n = x.shape[0]
    i, j = jnp.arange(n)[:, None], jnp.arange(columns.shape[0])[None]
    same_device = j // n == lax.axis_index(BATCH)
    excluded = same_device & (i % period == j % period)
    return reduction.reduce(jnp.where(excluded, jnp.float32(MASKED), scores(x, columns)))


class Exchange(NamedTuple):
    """A way to reduce scores over the rows of all devices, inside `shard_map`."""

    pairs: Callable[[Array, Array, Reduction, int], tuple[Results, Results]]
    """(x, y, reduction, period) -> results of the rows of x, and of the rows of y."""

    within: Callable[[Array, Reduction, int], Results]
    """(x, reduction, period) -> results of the rows of x, scored against themselves."""


EXCHANGES = {
    "gather": Exchange(gather_pairs, gather_self),
    "ring": Exchange(ring_pairs, ring_self),
}
