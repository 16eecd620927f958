"""SatMIP: each image must identify its own metadata in the batch, and vice versa."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jaxtyping import Array, Float32

from satmip_jax.losses.contrastive import info_nce, sigmoid_loss
from satmip_jax.metadata.schema import Schema
from satmip_jax.models import Head
from satmip_jax.objectives.base import Forward, Method, Scalars
from satmip_jax.objectives.options import MethodOptions, option
from satmip_jax.objectives.scores import Scores


@dataclass(frozen=True)
class SatMIPOptions(MethodOptions):
    """Options of `SatMIP`."""

    embed_dim: int = option(
        512, "width of the embedding space shared by images and metadata", at_least=1
    )
    loss: str = option(
        "info_nce",
        "info_nce, as in CLIP; or sigmoid, as in SigLIP (use logit_scale_init 10)",
        choices=("info_nce", "sigmoid"),
    )
    logit_scale_init: float = option(
        1 / 0.07, "initial value of the learned inverse temperature", above=0
    )
    logit_bias_init: float = option(-10.0, "initial value of the sigmoid loss's learned bias")


class SatMIP(Method):
    """Symmetric InfoNCE between one view and the metadata.

    With `config.method.loss = "sigmoid"`, SigLIP's loss instead.

    Source: Bourcier et al. 2024 (SatMIP); Zhai et al. 2023 (SigLIP).
    """

    title = "SatMIP"
    options_class = SatMIPOptions
    options: SatMIPOptions
    metadata_view = 0
    joint_heads = ("image", "metadata")

    def __init__(self, options: SatMIPOptions, fields: str = "all") -> None:
        super().__init__(options, fields)
        self.logit_scale_init = options.logit_scale_init
        self.logit_bias_init = options.logit_bias_init if options.loss == "sigmoid" else None

    def heads(self, schema: Schema) -> dict[str, Head]:
        """Return a linear projection of each modality."""
        out = self.options.embed_dim
        return {
            "image": Head("image", "linear", out=out),
            "metadata": Head("metadata", "linear", out=out),
        }

    def scores(self, batch_size: int) -> dict[str, Scores]:
        """Return the scores of all images against all metadata."""
        return {"satmip": Scores.between_pairs(batch_size, self.options.embed_dim)}

    def losses(self, forward: Forward, batch: dict[str, Any]) -> tuple[Scalars, Scalars]:
        """Compute "satmip", the loss between images and metadata, and its accuracy."""
        (image,) = forward.images(batch["image"], [0])
        return self.loss(forward, image, forward.metadata(batch["metadata"]))

    def loss(
        self,
        forward: Forward,
        image: Float32[Array, "batch image_width"],
        metadata: Float32[Array, "batch metadata_width"],
    ) -> tuple[Scalars, Scalars]:
        """Compute the loss from the features of a view and the metadata; returns as `losses`."""
        (image,) = forward.head("image", [image])
        (metadata,) = forward.head("metadata", [metadata])
        scale, mesh, exchange = forward.apply("logit_scale"), forward.mesh, forward.exchange
        metrics = {"logit_scale": scale}
        if self.options.loss == "sigmoid":
            metrics["logit_bias"] = bias = forward.apply("logit_bias")
            loss, results = sigmoid_loss(image, metadata, scale, bias, mesh, exchange)
        else:
            loss, results = info_nce(image, metadata, scale, mesh, exchange)
        return {"satmip": loss}, metrics | {"satmip_accuracy": results["accuracy"]}
