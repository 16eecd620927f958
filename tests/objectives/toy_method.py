"""A pretraining method in one file: InfoNCE between two views, with a learned inverse temperature.

Tests register it in METHODS as "toy"; nothing else in the package knows it.
"""

from dataclasses import dataclass

from satmip_jax.losses.contrastive import info_nce
from satmip_jax.models import Head
from satmip_jax.objectives.base import Method
from satmip_jax.objectives.options import MethodOptions, option
from satmip_jax.objectives.scores import Scores


@dataclass(frozen=True)
class ToyOptions(MethodOptions):
    """Options of `Toy`."""

    toy_dim: int = option(8, "width of the embeddings", at_least=1)
    toy_scale: float = option(10.0, "initial inverse temperature", above=0)


class Toy(Method):
    """Each first view must identify the second view of its image, and vice versa."""

    title = "Toy Views"
    options_class = ToyOptions
    options: ToyOptions
    views = 2

    def __init__(self, options, fields="all"):
        super().__init__(options, fields)
        self.logit_scale_init = options.toy_scale

    def heads(self, schema):
        return {"metadata_free": Head("image", "linear", out=self.options.toy_dim, views=2)}

    def scores(self, batch_size):
        return {"toy": Scores.between_pairs(batch_size, self.options.toy_dim)}

    def losses(self, forward, batch):
        features = forward.images(batch["image"], [0, 1])
        first, second = forward.head("metadata_free", features)
        scale = forward.apply("logit_scale")
        loss, results = info_nce(first, second, scale, forward.mesh, forward.exchange)
        return {"toy": loss}, {"toy_accuracy": results["accuracy"], "logit_scale": scale}
