"""SatMIP: an image finds its metadata among those of the batch, and the other way round."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from satmip_jax.metadata.tabular import Schema
from satmip_jax.objectives.base import Array, Forward
from satmip_jax.objectives.contrastive import info_nce


class SatMIP:
    """Symmetric InfoNCE between one view and the metadata (Bourcier et al. 2024)."""

    views = 1
    metadata_view = 0

    def __init__(self, config: ConfigDict) -> None:
        self.projector = ("linear", config.method.embed_dim)

    def heads(self, schema: Schema) -> dict[str, tuple[Any, ...]]:
        return {"image": self.projector, "metadata": self.projector}

    def negatives(self, batch_size: int) -> dict[str, int]:
        return {"satmip": batch_size - 1}

    def losses(
        self, forward: Forward, views: Sequence[Array], batch: dict[str, Any]
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        return self.loss(forward, forward.images(views)[0], forward.metadata(batch["metadata"]))

    def loss(
        self, forward: Forward, image: Array, metadata: Array
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        """The loss from the encoded view (B, D) and the encoded metadata (B, M)."""
        (image,) = forward.head("image", [image])
        (metadata,) = forward.head("metadata", [metadata])
        scale = forward.scale()
        loss, metrics = info_nce(image, metadata, scale, forward.mesh)
        return {"satmip": loss}, {"satmip_accuracy": metrics["accuracy"], "logit_scale": scale}
