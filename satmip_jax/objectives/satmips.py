"""SatMIPS: SimCLR and SatMIP at once, coupled through one shared view."""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

from satmip_jax.metadata.schema import Schema
from satmip_jax.objectives.base import Array, Forward
from satmip_jax.objectives.satmip import SatMIP
from satmip_jax.objectives.simclr import SimCLR


class SatMIPS:
    """Sum of both losses on one shared image encoder (Bourcier et al. 2024).

    Coupled, SatMIP reuses the first of SimCLR's two views: two image forwards a step.
    `config.method.coupled = False` gives SatMIP a view of its own: three, as in SLIP
    (Mu et al. 2022).
    """

    def __init__(self, config: ConfigDict) -> None:
        self.simclr, self.satmip = SimCLR(config), SatMIP(config)
        self.views = 2 if config.method.coupled else 3
        self.metadata_view = 0 if config.method.coupled else 2
        self.weight = config.method.metadata_weight

    def heads(self, schema: Schema) -> dict[str, tuple[Any, ...]]:
        return self.simclr.heads(schema) | self.satmip.heads(schema)

    def negatives(self, batch_size: int) -> dict[str, int]:
        return self.simclr.negatives(batch_size) | self.satmip.negatives(batch_size)

    def losses(
        self, forward: Forward, batch: dict[str, Any]
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        features = forward.images(batch["image"], range(self.views))
        metadata = forward.metadata(batch["metadata"])
        simclr, simclr_metrics = self.simclr.loss(forward, features[:2])
        satmip, satmip_metrics = self.satmip.loss(forward, features[self.metadata_view], metadata)
        weighted = {name: self.weight * loss for name, loss in satmip.items()}
        return simclr | weighted, simclr_metrics | satmip_metrics
