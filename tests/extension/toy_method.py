"""TwoHeads: SimCLR with a linear projector, and a second head that regresses the label's number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from satmip_jax.losses.contrastive import nt_xent
from satmip_jax.metadata.schema import Schema
from satmip_jax.models import Head
from satmip_jax.objectives.base import Forward, Method, Scalars
from satmip_jax.objectives.options import MethodOptions, option
from satmip_jax.objectives.scores import Scores


@dataclass(frozen=True)
class TwoHeadsOptions(MethodOptions):
    """Options of `TwoHeads`."""

    toy_width: int = option(12, "width of the compared embeddings", at_least=1)
    toy_weight: float = option(0.5, "weight of the regression", at_least=0)


class TwoHeads(Method):
    """Two views of an image must identify each other; a head predicts the class number."""

    title = "Two heads"
    options_class = TwoHeadsOptions
    options: TwoHeadsOptions
    views = 2

    def heads(self, schema: Schema) -> dict[str, Head]:
        """One head for both views, one for the first."""
        return {
            "pairs": Head("image", "linear", out=self.options.toy_width, views=2),
            "number": Head("image", "affine", out=1),
        }

    def scores(self, batch_size: int) -> dict[str, Scores]:
        """One contrastive loss among the views."""
        return {"pairs": Scores.among_views(batch_size, self.options.toy_width)}

    def losses(self, forward: Forward, batch: dict[str, Any]) -> tuple[Scalars, Scalars]:
        """NT-Xent and a squared error."""
        views = forward.images(batch["image"], [0, 1])
        first, second = forward.head("pairs", views)
        loss, metrics = nt_xent(first, second, 0.2, forward.mesh, forward.exchange)
        (number,) = forward.head("number", views[:1])
        error = number[:, 0] - batch["label"].astype(jnp.float32)
        regression = self.options.toy_weight * jnp.mean(jnp.square(error))
        return {"pairs": loss, "number": regression}, {"pairs_accuracy": metrics["accuracy"]}
