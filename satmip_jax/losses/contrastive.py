"""Contrastive losses over the global batch: InfoNCE, NT-Xent and the sigmoid loss.

One exact definition each. Inputs are global arrays whose rows are spread over the mesh; inside
`shard_map` every device scores its own rows against those of all devices, so the number of
negatives is that of the global batch, and loss and gradients are those of the naive formula on one
device. How the others' rows come is the exchange:

* `gather`: all embeddings are copied to every device, with gradient. Fastest while
  (batch / devices) x batch scores fit.
* `ring`: embeddings go round the devices and are met tile by tile (`ring`): no such matrix.

Everything here is float32 at full matmul precision whatever the dtype of the encoders.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from satmip_jax.distributed.sharding import BATCH
from satmip_jax.losses.reductions import MASKED, LogSumExp, Reduction, SoftPlus, scores
from satmip_jax.losses.ring import ring_pairs, ring_self

Array = jax.Array
Result = tuple[Array, dict[str, Array]]


def normalize(x: Array) -> Array:
    """Return the rows of `x` at unit length, in float32; a zero row stays zero.

    Example:
        >>> normalize(jnp.array([[3.0, 4.0]]))
        Array([[0.6, 0.8]], dtype=float32)
    """
    x = x.astype(jnp.float32)
    return x / jnp.sqrt(jnp.maximum(jnp.sum(x * x, axis=-1, keepdims=True), 1e-12))


def info_nce(a: Array, b: Array, scale: Array, mesh: Mesh, exchange: str = "gather") -> Result:
    """Symmetric InfoNCE: row i of `a` belongs to row i of `b` among all rows of the batch.

    Args:
        a: (B, d) embeddings of one modality, not normalised.
        b: (B, d) embeddings of the other.
        scale: () inverse temperature, float32.
        mesh: the devices over which the rows are spread.
        exchange: a key of `EXCHANGES`.

    Returns:
        The loss, () float32, and `{"accuracy": ...}`: how often the own partner scores highest,
        mean of both directions.

    Source: Radford et al. 2021 (CLIP), eq. in fig. 3; van den Oord et al. 2018 (InfoNCE).
    """
    pairs, _ = EXCHANGES[exchange]

    def local(a: Array, b: Array, scale: Array) -> Result:
        a, b = scale * normalize(a), normalize(b)
        own = jnp.sum(a * b, axis=1)
        rows, columns = pairs(a, b, LogSumExp(), a.shape[0])
        return _mean_over_both((own, *rows), (own, *columns))

    return _on_mesh(local, mesh, (P(BATCH), P(BATCH), P()))(a, b, scale)


def nt_xent(
    first: Array, second: Array, temperature: float, mesh: Mesh, exchange: str = "gather"
) -> Result:
    """NT-Xent: each of the 2 B views finds its partner among the 2 B - 1 others.

    Args:
        first: (B, d) embeddings of the first view of each image, not normalised.
        second: (B, d) embeddings of the second view.
        temperature: > 0.
        mesh: the devices over which the rows are spread.
        exchange: a key of `EXCHANGES`.

    Returns:
        The loss, () float32, and `{"accuracy": ...}`.

    Source: Chen et al. 2020 (SimCLR), eq. 1, mean over all 2 B anchors.
    """
    _, pairs_of_one = EXCHANGES[exchange]

    def local(first: Array, second: Array) -> Result:
        b = first.shape[0]
        views = normalize(jnp.concatenate([first, second])) * jnp.float32(temperature**-0.5)
        own = jnp.sum(views[:b] * views[b:], axis=1)
        log_sum, largest = pairs_of_one(views, LogSumExp(), b)
        return _mean_over_both((own, log_sum[:b], largest[:b]), (own, log_sum[b:], largest[b:]))

    return _on_mesh(local, mesh, (P(BATCH), P(BATCH)))(first, second)


def sigmoid_loss(
    a: Array, b: Array, scale: Array, bias: Array, mesh: Mesh, exchange: str = "gather"
) -> Result:
    """Sigmoid loss: every pair of the batch is told apart from the others, own or not.

    Args:
        a, b, mesh, exchange: as of `info_nce`.
        scale: () inverse temperature, float32; starts at 10.
        bias: () added to all scores, float32; starts at -10.

    Returns:
        The loss, () float32: the sum over all B x B pairs, divided by B; and `{"accuracy": ...}`,
        how often an own pair is recognised (its score is above 0).

    Source: Zhai et al. 2023 (SigLIP), algorithm 1.
    """
    pairs, _ = EXCHANGES[exchange]

    def local(a: Array, b: Array, scale: Array, bias: Array) -> Result:
        a, b = scale * normalize(a), normalize(b)
        own = jnp.sum(a * b, axis=1) + bias
        column = jnp.zeros_like(own)[:, None]  # one more dimension adds the bias to every score
        a = jnp.concatenate([a, column + bias], axis=1)
        b = jnp.concatenate([b, column + 1], axis=1)
        (rows,), (columns,) = pairs(a, b, SoftPlus(), a.shape[0])
        others = 0.5 * (rows + columns)  # both sum over the same pairs
        loss = jnp.mean(jax.nn.softplus(-own) + others)
        accuracy = jnp.mean((own > 0).astype(jnp.float32))
        return lax.pmean((loss, {"accuracy": accuracy}), BATCH)

    return _on_mesh(local, mesh, (P(BATCH), P(BATCH), P(), P()))(a, b, scale, bias)


def _on_mesh(local: Callable[..., Result], mesh: Mesh, specs: tuple[P, ...]) -> Any:
    return jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=P())


def _mean_over_both(*directions: tuple[Array, Array, Array]) -> Result:
    """Cross-entropy and accuracy of (own score, log-sum-exp and maximum of the negatives')."""
    # -log(e^own / (e^own + sum e^s)) = log(1 + e^(log sum e^s - own))
    loss = jnp.mean(jnp.stack([jax.nn.softplus(log_sum - own) for own, log_sum, _ in directions]))
    found = jnp.stack([own > largest for own, _, largest in directions])
    return lax.pmean((loss, {"accuracy": jnp.mean(found.astype(jnp.float32))}), BATCH)


def gather_pairs(x: Array, y: Array, reduction: Reduction, period: int) -> Any:
    """As `ring.ring_pairs`, from all embeddings on every device."""
    return gather_rows(x, y, reduction, period), gather_rows(y, x, reduction, period)


def gather_self(x: Array, reduction: Reduction, period: int) -> Any:
    """As `ring.ring_self`, from all embeddings on every device."""
    return gather_rows(x, x, reduction, period)


def gather_rows(x: Array, y: Array, reduction: Reduction, period: int) -> Any:
    """Reduce the scores of this device's rows over the columns of all devices."""
    everyone = lax.all_gather(y, BATCH, tiled=True)  # (n, d) of each -> (N, d), with gradient
    n = x.shape[0]
    i, j = jnp.arange(n)[:, None], jnp.arange(everyone.shape[0])[None]
    at_home = j // n == lax.axis_index(BATCH)
    own = at_home & (i % period == j % period)
    return reduction.dense(jnp.where(own, jnp.float32(MASKED), scores(x, everyone)))


# name -> reductions over the pairs of two sides, and over the pairs within one
EXCHANGES: dict[str, tuple[Any, Any]] = {
    "gather": (gather_pairs, gather_self),
    "ring": (ring_pairs, ring_self),
}
