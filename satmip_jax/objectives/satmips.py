"""SatMIPS: SimCLR and SatMIP together, coupled through one shared view."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from satmip_jax.metadata.schema import Schema
from satmip_jax.models import Head
from satmip_jax.objectives.base import Forward, Method, Scalars
from satmip_jax.objectives.options import option
from satmip_jax.objectives.satmip import SatMIP, SatMIPOptions
from satmip_jax.objectives.scores import Scores
from satmip_jax.objectives.simclr import SimCLR, SimCLROptions


@dataclass(frozen=True)
class SatMIPSOptions(SimCLROptions, SatMIPOptions):
    """Options of `SatMIPS`: those of `SimCLR` and `SatMIP`, and its own."""

    coupled: bool = option(True, "SatMIP shares one of SimCLR's two views")
    metadata_weight: float = option(1.0, "weight of the SatMIP loss in the sum", at_least=0)


class SatMIPS(Method):
    """Sum of both losses on one shared image encoder.

    Coupled, SatMIP reuses the first of SimCLR's two views: two image forwards per step.
    With `config.method.coupled = False`, SatMIP has its own view: three forwards, as in SLIP.

    Source: Bourcier et al. 2024 (SatMIPS); Mu et al. 2022 (SLIP).
    """

    title = "SatMIPS"
    options_class = SatMIPSOptions
    options: SatMIPSOptions
    joint_heads = SatMIP.joint_heads

    def __init__(self, options: SatMIPSOptions, fields: str = "all") -> None:
        super().__init__(options, fields)
        self.simclr, self.satmip = SimCLR(options, fields), SatMIP(options, fields)
        self.views = 2 if options.coupled else 3
        self.metadata_view: int = 0 if options.coupled else 2
        self.logit_scale_init = self.satmip.logit_scale_init
        self.logit_bias_init = self.satmip.logit_bias_init

    def heads(self, schema: Schema) -> dict[str, Head]:
        """Return the heads of both methods."""
        return self.simclr.heads(schema) | self.satmip.heads(schema)

    def scores(self, batch_size: int) -> dict[str, Scores]:
        """Return the scores of both losses."""
        return self.simclr.scores(batch_size) | self.satmip.scores(batch_size)

    def losses(self, forward: Forward, batch: dict[str, Any]) -> tuple[Scalars, Scalars]:
        """Compute "simclr" and the weighted "satmip", and the metrics of both."""
        features = forward.images(batch["image"], range(self.views))
        metadata = forward.metadata(batch["metadata"])
        simclr, simclr_metrics = self.simclr.loss(forward, features[:2])
        satmip, satmip_metrics = self.satmip.loss(forward, features[self.metadata_view], metadata)
        weighted = {name: self.options.metadata_weight * loss for name, loss in satmip.items()}
        return simclr | weighted, simclr_metrics | satmip_metrics
