"""What a pretraining method is: how many views it wants, its heads, and its losses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from satmip_jax.metadata.tabular import Schema

Array = jax.Array


@dataclass(frozen=True)
class Forward:
    """The towers with their parameters and one step's randomness: what a loss may call."""

    towers: Any  # models.Towers
    params: Any
    key: Array  # of dropout and dropped fields
    mesh: Mesh
    schema: Schema  # of the data the towers were built for

    def images(self, views: Sequence[Array]) -> list[Array]:
        """Encode n views, each (B, s, s, 3), in one forward: n arrays (B, D) float32.

        The views are interleaved, image by image, so that rows stay on their device.
        """
        batch = views[0].shape[0]
        stacked = jnp.stack(list(views), axis=1).reshape(-1, *views[0].shape[1:])
        features = self.apply("encode_image", stacked, train=True)
        features = features.reshape(batch, len(views), -1)
        return [features[:, i] for i in range(len(views))]

    def metadata(self, metadata: dict[str, Array]) -> Array:
        """Encode a batch of metadata: (B, M) float32."""
        return self.apply("encode_metadata", metadata, train=True)

    def head(self, name: str, features: Sequence[Array]) -> list[Array]:
        """Project the features of n views with one head, batch statistics over all of them.

        NOTE[DIFF] SLIP takes the statistics of each view apart; SimCLR, as here, of both.
        """
        batch = features[0].shape[0]
        stacked = jnp.stack(list(features), axis=1).reshape(batch * len(features), -1)
        out = self.apply("head", name, stacked).reshape(batch, len(features), -1)
        return [out[:, i] for i in range(len(features))]

    def scale(self) -> Array:
        """The learned inverse temperature of InfoNCE, () float32."""
        return self.apply("logit_scale")

    def apply(self, method: str, *args: Any, **kwargs: Any) -> Array:
        rngs = {"dropout": self.key, "fields": jax.random.fold_in(self.key, 1)}
        return self.towers.apply({"params": self.params}, *args, **kwargs, method=method, rngs=rngs)


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
        self, forward: Forward, views: Sequence[Array], batch: dict[str, Any]
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        """Return the losses to be summed, by name, and other metrics to be logged.

        Args:
            forward: the towers.
            views: `self.views` arrays (B, s, s, 3), normalised.
            batch: "label" (B,) and "metadata", a dict of arrays that already follow the crop.
        """
        ...
