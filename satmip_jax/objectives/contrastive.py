"""Contrastive losses over the global batch: InfoNCE and NT-Xent, one exact definition each.

Inputs are global arrays whose rows are spread over the mesh. Inside `shard_map` every device
gathers the embeddings of all devices and scores its own rows against them, so the number of
negatives is that of the global batch and gradients flow through the gathered copies: loss and
gradients are those of the naive formula on one device.

Logits are float32 at full matmul precision whatever the dtype of the encoders: at a scale of 100
the 10 bits of TF32 would be an error of 0.1 in a logit.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from satmip_jax.parallel import DATA

Array = jax.Array


def normalize(x: Array) -> Array:
    """Return the rows of `x` at unit length, in float32; a zero row stays zero.

    Example:
        >>> normalize(jnp.array([[3.0, 4.0]]))
        Array([[0.6, 0.8]], dtype=float32)
    """
    x = x.astype(jnp.float32)
    return x * lax.rsqrt(jnp.maximum(jnp.sum(x * x, axis=-1, keepdims=True), 1e-12))


def info_nce(a: Array, b: Array, scale: Array, mesh: Mesh) -> tuple[Array, dict[str, Array]]:
    """Symmetric InfoNCE: row i of `a` belongs to row i of `b` among all rows of the batch.

    Args:
        a: (B, d) embeddings of one modality, not normalised.
        b: (B, d) embeddings of the other.
        scale: () inverse temperature, float32.
        mesh: the devices over which the rows are spread.

    Returns:
        The loss, () float32, and `{"accuracy": ...}`: how often the own partner scores highest,
        mean of both directions.

    Source: Radford et al. 2021 (CLIP), eq. in fig. 3; van den Oord et al. 2018 (InfoNCE).
    """

    def local(a: Array, b: Array, scale: Array) -> tuple[Array, dict[str, Array]]:
        a, b = normalize(a), normalize(b)
        all_a, all_b = _gather(a), _gather(b)
        own = _own_rows(a)
        forward, right_a = _cross_entropy(scale * _scores(a, all_b), own)
        backward, right_b = _cross_entropy(scale * _scores(b, all_a), own)
        loss = 0.5 * (forward + backward)
        return lax.pmean((loss, {"accuracy": 0.5 * (right_a + right_b)}), DATA)

    return jax.shard_map(local, mesh=mesh, in_specs=(P(DATA), P(DATA), P()), out_specs=P())(
        a, b, scale
    )


def nt_xent(
    first: Array, second: Array, temperature: float, mesh: Mesh
) -> tuple[Array, dict[str, Array]]:
    """NT-Xent: each of the 2 B views finds its partner among the 2 B - 1 others.

    Args:
        first: (B, d) embeddings of the first view of each image, not normalised.
        second: (B, d) embeddings of the second view.
        temperature: > 0.
        mesh: the devices over which the rows are spread.

    Returns:
        The loss, () float32, and `{"accuracy": ...}`.

    Source: Chen et al. 2020 (SimCLR), eq. 1, mean over all 2 B anchors.
    """

    def local(first: Array, second: Array) -> tuple[Array, dict[str, Array]]:
        first, second = normalize(first), normalize(second)
        all_first, all_second = _gather(first), _gather(second)
        own = _own_rows(first)

        def anchors(x: Array, partners: Array, siblings: Array) -> tuple[Array, Array]:
            to_partners = _scores(x, partners) / temperature
            to_siblings = _scores(x, siblings) / temperature
            itself = own[:, None] == jnp.arange(siblings.shape[0])[None]
            to_siblings = jnp.where(itself, -jnp.inf, to_siblings)
            return _cross_entropy(jnp.concatenate([to_partners, to_siblings], axis=1), own)

        loss_first, right_first = anchors(first, all_second, all_first)
        loss_second, right_second = anchors(second, all_first, all_second)
        loss = 0.5 * (loss_first + loss_second)
        return lax.pmean((loss, {"accuracy": 0.5 * (right_first + right_second)}), DATA)

    return jax.shard_map(local, mesh=mesh, in_specs=(P(DATA), P(DATA)), out_specs=P())(
        first, second
    )


def _gather(x: Array) -> Array:
    """(b, d) on each device -> (B, d) on all of them, with gradient."""
    return lax.all_gather(x, DATA, tiled=True)


def _own_rows(x: Array) -> Array:
    """Indices, in the global batch, of the rows that this device holds."""
    return lax.axis_index(DATA) * x.shape[0] + jnp.arange(x.shape[0])


def _scores(x: Array, y: Array) -> Array:
    # (b, d) . (B, d) -> (b, B)
    return lax.dot_general(x, y, (((1,), (1,)), ((), ())), precision=lax.Precision.HIGHEST)


def _cross_entropy(logits: Array, target: Array) -> tuple[Array, Array]:
    """Mean cross-entropy and accuracy of (b, n) logits at the (b,) target columns."""
    chosen = jnp.take_along_axis(logits, target[:, None], axis=1)[:, 0]
    loss = jnp.mean(jax.nn.logsumexp(logits, axis=1) - chosen)
    return loss, jnp.mean((jnp.argmax(logits, axis=1) == target).astype(jnp.float32))
