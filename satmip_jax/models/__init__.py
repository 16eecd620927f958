"""Networks. The only folder that knows flax; everything else calls `init` and `apply`."""

from satmip_jax.models.towers import METADATA_ENCODERS, Towers, build_towers, decays, example_batch
from satmip_jax.models.vit import parse_vit

__all__ = [
    "METADATA_ENCODERS",
    "Towers",
    "build_towers",
    "decays",
    "example_batch",
    "parse_vit",
]
