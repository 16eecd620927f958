"""SatMIP: an image finds its metadata among those of the batch, and the other way round."""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

from satmip_jax.losses.contrastive import info_nce, sigmoid_loss
from satmip_jax.metadata.schema import Schema
from satmip_jax.objectives.base import Array, Forward

LOSSES = ("info_nce", "sigmoid")


class SatMIP:
    """Symmetric InfoNCE between one view and the metadata (Bourcier et al. 2024).

    `config.method.loss = "sigmoid"` takes SigLIP's loss in its place (Zhai et al. 2023).
    """

    views = 1
    metadata_view = 0

    def __init__(self, config: ConfigDict) -> None:
        self.projector = ("linear", config.method.embed_dim)
        self.sigmoid = config.method.loss == "sigmoid"

    def heads(self, schema: Schema) -> dict[str, tuple[Any, ...]]:
        return {"image": self.projector, "metadata": self.projector}

    def negatives(self, batch_size: int) -> dict[str, int]:
        return {"satmip": batch_size - 1}

    def losses(
        self, forward: Forward, batch: dict[str, Any]
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        (image,) = forward.images(batch["image"], [0])
        return self.loss(forward, image, forward.metadata(batch["metadata"]))

    def loss(
        self, forward: Forward, image: Array, metadata: Array
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        """The loss from the encoded view (B, D) and the encoded metadata (B, M)."""
        (image,) = forward.head("image", [image])
        (metadata,) = forward.head("metadata", [metadata])
        scale, mesh, exchange = forward.apply("logit_scale"), forward.mesh, forward.exchange
        metrics = {"logit_scale": scale}
        if self.sigmoid:
            metrics["logit_bias"] = bias = forward.apply("logit_bias")
            loss, found = sigmoid_loss(image, metadata, scale, bias, mesh, exchange)
        else:
            loss, found = info_nce(image, metadata, scale, mesh, exchange)
        return {"satmip": loss}, metrics | {"satmip_accuracy": found["accuracy"]}
