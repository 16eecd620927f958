"""What a pretraining method is: how many views it wants, its heads, and its losses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from satmip_jax.distributed.sharding import BATCH
from satmip_jax.metadata.schema import Schema

Array = jax.Array


@dataclass(frozen=True)
class Forward:
    """The towers with their parameters and one step's randomness: what a loss may call.

    Attributes:
        keys: (B,) a key for each example of the global batch; all that is drawn for an example
            depends on its own key, so that neither devices nor `micro_batch` change a result.
        draw: (stored images (b, ...), keys (b,), number of the view) -> that view of each image,
            (b, s, s, 3), normalised.
        schema: of the data that the towers were built for.
        exchange: how losses meet the embeddings of other devices, see `contrastive.EXCHANGES`.
        micro_batch: examples per device that are encoded at once, see `encode`; 0 for all.
    """

    towers: Any  # models.Towers
    params: Any
    keys: Array
    draw: Callable[[Array, Array, int], Array]
    mesh: Mesh
    schema: Schema
    exchange: str = "gather"
    micro_batch: int = 0

    def images(self, images: Array, views: Sequence[int]) -> list[Array]:
        """Draw and encode views of the stored images, all in one forward: each (B, D) float32.

        The views are interleaved, image by image, so that rows stay on their device.
        """

        def encode(images: Array, keys: Array) -> Array:
            drawn = [self.draw(images, keys, view) for view in views]
            stacked = jnp.stack(drawn, axis=1).reshape(-1, *drawn[0].shape[1:])
            features = self.apply("encode_image", stacked, train=True)
            return features.reshape(images.shape[0], len(drawn), -1)

        features = self.encode(encode, images)
        return [features[:, i] for i in range(len(views))]

    def metadata(self, metadata: dict[str, Array]) -> Array:
        """Encode a batch of metadata: (B, M) float32."""

        def one(metadata: dict[str, Array], key: Array) -> Array:
            rows = jax.tree.map(lambda x: x[None], metadata)
            rngs = {"dropout": key, "fields": jax.random.fold_in(key, 1)}
            return self.apply("encode_metadata", rows, train=True, rngs=rngs)[0]

        return self.encode(jax.vmap(one), metadata)

    def encode(self, function: Callable[[Any, Array], Array], inputs: Any) -> Array:
        """Apply `function(inputs, keys)` to the batch, `micro_batch` rows per device at a time.

        In micro-batches nothing but the features is kept of the forward pass; the backward pass,
        which comes with the gradient of the whole batch's loss by the features, encodes each
        micro-batch again. Memory is that of one micro-batch, time a third more, and the gradient
        exactly that of the whole batch: unlike accumulated gradients, which have the negatives of
        a micro-batch only.

        Source: Gao et al. 2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited
        Setup" (gradient caching), here as recomputation in a loop.
        """
        batch, devices = self.keys.shape[0], self.mesh.size
        parts = batch // devices // self.micro_batch if self.micro_batch else 1
        if parts <= 1:
            return function(inputs, self.keys)

        def cut(x: Array) -> Array:
            # (B, ...) -> (parts, B / parts, ...) with every device's rows cut in `parts`
            x = x.reshape(devices, parts, -1, *x.shape[1:])
            return jnp.swapaxes(x, 0, 1).reshape(parts, -1, *x.shape[3:])

        def join(x: Array) -> Array:
            x = jnp.swapaxes(x.reshape(parts, devices, -1, *x.shape[2:]), 0, 1)
            return x.reshape(batch, *x.shape[3:])

        spread = NamedSharding(self.mesh, P(None, BATCH))

        def place(x: Array) -> Array:
            return jax.lax.with_sharding_constraint(x, spread)

        pieces = jax.tree.map(lambda x: place(cut(x)), (inputs, self.keys))
        # inside a loop nothing can undo the recomputation: it needs no barrier
        again = jax.checkpoint(function, prevent_cse=False)
        return join(place(jax.lax.map(lambda piece: again(*piece), pieces)))

    def head(self, name: str, features: Sequence[Array]) -> list[Array]:
        """Project the features of n views with one head, batch statistics over all of them.

        NOTE[DIFF] SLIP takes the statistics of each view apart; SimCLR, as here, of both.
        """
        batch = features[0].shape[0]
        stacked = jnp.stack(list(features), axis=1).reshape(batch * len(features), -1)
        out = self.apply("head", name, stacked).reshape(batch, len(features), -1)
        return [out[:, i] for i in range(len(features))]

    def apply(self, method: str, *args: Any, **kwargs: Any) -> Array:
        """Call a method of the towers with the parameters."""
        return self.towers.apply({"params": self.params}, *args, **kwargs, method=method)


@runtime_checkable
class Method(Protocol):
    """A pretraining method, made from a config: `Method(config)`.

    Attributes:
        views: image views that a step draws.
        metadata_view: the view whose crop the metadata follows; None where metadata is not used.
    """

    @property
    def views(self) -> int: ...

    @property
    def metadata_view(self) -> int | None: ...

    def heads(self, schema: Schema) -> dict[str, tuple[Any, ...]]:
        """Name of each head -> ("mlp", hidden, out), ("linear", out), or with bias ("affine", out).

        Heads named "metadata" take the metadata encoder's output, all others the image encoder's.
        """
        ...

    def negatives(self, batch_size: int) -> dict[str, int]:
        """True number of negatives of each contrastive loss, per anchor, for the log.

        Empty where heads predict something instead; the log then says what.
        """
        ...

    def losses(
        self, forward: Forward, batch: dict[str, Any]
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        """Return the losses to be summed, by name, and other metrics to be logged.

        Args:
            forward: the towers.
            batch: "image", stored images, uint8 (B, S, S, 3); "label" (B,); and "metadata", a dict
                of arrays that already follow the crop of `metadata_view`.
        """
        ...
