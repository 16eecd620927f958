"""Pretraining methods. A new method is one file here and one line in METHODS."""

from __future__ import annotations

from collections.abc import Callable

from ml_collections import ConfigDict

from satmip_jax.losses.contrastive import EXCHANGES
from satmip_jax.objectives.base import Forward, Method
from satmip_jax.objectives.metapred import MetaPred
from satmip_jax.objectives.satmip import LOSSES, SatMIP
from satmip_jax.objectives.satmips import SatMIPS
from satmip_jax.objectives.simclr import SimCLR
from satmip_jax.objectives.supervised import Supervised

METHODS: dict[str, Callable[[ConfigDict], Method]] = {
    "simclr": SimCLR,
    "satmip": SatMIP,
    "satmips": SatMIPS,
    "supervised": Supervised,
    "metapred": MetaPred,
}


def build_method(config: ConfigDict) -> Method:
    """Return the method that `config.method.name` names."""
    return METHODS[config.method.name](config)


__all__ = ["EXCHANGES", "LOSSES", "METHODS", "Forward", "Method", "build_method"]
