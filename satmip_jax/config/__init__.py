"""Configuration of a run: defaults, loading, overrides and validation."""

from satmip_jax.config.defaults import default_config
from satmip_jax.config.loading import load_config, parse_arg

__all__ = ["default_config", "load_config", "parse_arg"]
