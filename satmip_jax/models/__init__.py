"""Networks. The only folder that imports flax; everything else calls `init` and `apply`."""

from satmip_jax.models.heads import Head
from satmip_jax.models.initialization import abstract_params, init_params
from satmip_jax.models.layers import ACTIVATIONS
from satmip_jax.models.parameter_roles import parameter_role, parameter_roles
from satmip_jax.models.towers import METADATA_ENCODERS, Towers, build_towers, example_batch
from satmip_jax.models.vit import parse_vit

__all__ = [
    "ACTIVATIONS",
    "METADATA_ENCODERS",
    "Head",
    "Towers",
    "abstract_params",
    "build_towers",
    "example_batch",
    "init_params",
    "parameter_role",
    "parameter_roles",
    "parse_vit",
]
