"""Heads: the projections from an encoder's output to where a loss compares or predicts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import flax.linen as nn

from satmip_jax.models.projectors import LinearProjector, MLPProjector, Predictor

INPUTS = ("image", "metadata")
KINDS = ("mlp", "predictor", "linear", "affine")
WITH_HIDDEN = ("mlp", "predictor")


@dataclass(frozen=True)
class Head:
    """A head that a pretraining method asks for.

    Attributes:
        input: the encoder whose output it takes, "image" or "metadata".
        kind: "mlp", SimCLR's projector of 3 layers; "predictor", 3 layers without batch norm;
            "linear", one matrix without a bias, as in CLIP; "affine", one matrix with a bias.
        out: width of its output.
        hidden: width of the hidden layers of an "mlp" or a "predictor"; 0 for the other kinds.
        views: views of each image that a step projects with it.

    Raises:
        ValueError: a width or number of views that cannot be built.

    Example:
        >>> from satmip_jax.models import Head
        >>> Head("image", "mlp", hidden=4096, out=256, views=2).out
        256
    """

    input: str
    kind: str
    out: int
    hidden: int = 0
    views: int = 1

    def __post_init__(self) -> None:
        for name, value, choices in (("input", self.input, INPUTS), ("kind", self.kind, KINDS)):
            if value not in choices:
                raise ValueError(f"Head.{name} is {value!r}; choose one of {', '.join(choices)}")
        if (self.hidden > 0) != (self.kind in WITH_HIDDEN):
            raise ValueError(
                f"Head.hidden is {self.hidden}; it must be above 0 for mlp and predictor, and 0 "
                "for linear and affine"
            )
        if self.out < 1 or self.views < 1:
            raise ValueError(f"Head.out and Head.views must be at least 1: {self}")


def build_head(head: Head, dtype: Any) -> nn.Module:
    """Return the module of a head: (b, d) -> (b, out) float32, computed in `dtype`."""
    if head.kind == "mlp":
        return MLPProjector(head.hidden, head.out, dtype=dtype)
    if head.kind == "predictor":
        return Predictor(head.hidden, head.out, dtype=dtype)
    if head.kind == "affine":  # an MLP without hidden layers: one layer, with a bias
        return MLPProjector(0, head.out, layers=1, dtype=dtype)
    return LinearProjector(head.out, dtype=dtype)
