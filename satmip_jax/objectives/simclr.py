"""SimCLR: two views of an image find each other among all views of the batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from satmip_jax.losses.contrastive import nt_xent
from satmip_jax.metadata.schema import Schema
from satmip_jax.objectives.base import Array, Forward


class SimCLR:
    """NT-Xent between two augmented views, projector of 3 layers (Chen et al. 2020; SLIP)."""

    views = 2
    metadata_view = None

    def __init__(self, config: ConfigDict) -> None:
        self.temperature = config.method.temperature
        self.projector = ("mlp", config.method.ssl_hidden, config.method.ssl_dim)

    def heads(self, schema: Schema) -> dict[str, tuple[Any, ...]]:
        return {"image_ssl": self.projector}

    def negatives(self, batch_size: int) -> dict[str, int]:
        return {"simclr": 2 * batch_size - 2}

    def losses(
        self, forward: Forward, batch: dict[str, Any]
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        return self.loss(forward, forward.images(batch["image"], [0, 1]))

    def loss(
        self, forward: Forward, features: Sequence[Array]
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        """The loss from the encoded views, (B, D) each."""
        first, second = forward.head("image_ssl", features)
        loss, metrics = nt_xent(first, second, self.temperature, forward.mesh, forward.exchange)
        return {"simclr": loss}, {"simclr_accuracy": metrics["accuracy"]}
