"""Configs as JSON and back, compared, and varied."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from satmip_jax.config.defaults import default_config
from satmip_jax.errors import ConfigError


def to_json(config: ConfigDict) -> str:
    """Return the config as indented JSON, stable across runs."""
    return json.dumps(config.to_dict(), indent=2, sort_keys=True)


def from_json(text: str) -> ConfigDict:
    """Rebuild a config written by `to_json`; keys unknown to this version are refused.

    Raises:
        ConfigError: not JSON, unknown keys, or values of another type.
    """
    config = default_config()
    try:
        stored = json.loads(text)
        for key, value in stored.items():  # a list is how JSON keeps a tuple
            if isinstance(value, dict):
                for name, entry in value.items():
                    config[key][name] = tuple(entry) if isinstance(entry, list) else entry
            else:
                config[key] = value
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(f"not a config of this version of satmip: {error}") from error
    return config


def differences(old: ConfigDict, new: ConfigDict) -> list[str]:
    """List `key: old -> new` for every value in which two configs differ."""

    def flat(config: ConfigDict) -> dict[str, Any]:
        return {
            f"{key}.{name}" if name else key: entry
            for key, value in config.to_dict().items()
            for name, entry in (value.items() if isinstance(value, dict) else [("", value)])
        }

    a, b = flat(old), flat(new)
    return [f"{key}: {a[key]!r} -> {b[key]!r}" for key in sorted(a) if a[key] != b[key]]


def vary(config: ConfigDict, changes: Mapping[str, Any]) -> ConfigDict:
    """A copy of a config with some values changed.

    Example:
      >>> vary(config, {"method.name": "satmip"}).method.name
      'satmip'
    """
    new = config.copy_and_resolve_references()
    new.update_from_flattened_dict(dict(changes))
    return new
