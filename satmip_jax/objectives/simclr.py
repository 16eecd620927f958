"""SimCLR: each view of an image must identify the other view among all views of the batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Array, Float32

from satmip_jax.losses.contrastive import nt_xent
from satmip_jax.metadata.schema import Schema
from satmip_jax.models import Head
from satmip_jax.objectives.base import Forward, Method, Scalars
from satmip_jax.objectives.options import MethodOptions, option
from satmip_jax.objectives.scores import Scores


@dataclass(frozen=True)
class SimCLROptions(MethodOptions):
    """Options of `SimCLR`."""

    temperature: float = option(0.1, "temperature of NT-Xent", above=0)
    ssl_hidden: int = option(4096, "width of the projector's hidden layers", at_least=1)
    ssl_dim: int = option(256, "width of the embeddings compared by NT-Xent", at_least=1)


class SimCLR(Method):
    """NT-Xent between two augmented views, projector of 3 layers.

    Source: Chen et al. 2020 (SimCLR); Mu et al. 2022 (SLIP) for the projector.
    """

    title = "SimCLR"
    options_class = SimCLROptions
    options: SimCLROptions
    views = 2

    def heads(self, schema: Schema) -> dict[str, Head]:
        """Return the projector of both views."""
        hidden, out = self.options.ssl_hidden, self.options.ssl_dim
        return {"image_ssl": Head("image", "mlp", hidden=hidden, out=out, views=2)}

    def scores(self, batch_size: int) -> dict[str, Scores]:
        """Return the scores of all views against each other."""
        return {"simclr": Scores.among_views(batch_size, self.options.ssl_dim)}

    def losses(self, forward: Forward, batch: dict[str, Any]) -> tuple[Scalars, Scalars]:
        """Compute "simclr", NT-Xent between both views, and its accuracy."""
        return self.loss(forward, forward.images(batch["image"], [0, 1]))

    def loss(
        self, forward: Forward, features: Sequence[Float32[Array, "batch width"]]
    ) -> tuple[Scalars, Scalars]:
        """Compute the loss from the features of the two views; returns as `losses`."""
        first, second = forward.head("image_ssl", features)
        loss, metrics = nt_xent(
            first, second, self.options.temperature, forward.mesh, forward.exchange
        )
        return {"simclr": loss}, {"simclr_accuracy": metrics["accuracy"]}
