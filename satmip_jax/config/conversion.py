"""Conversion of configs to and from JSON, their differences, and changed copies."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from satmip_jax.config.defaults import default_config
from satmip_jax.errors import ConfigError


def to_json(config: ConfigDict) -> str:
    """Return the config as indented JSON with sorted keys, stable across runs."""
    return json.dumps(config.to_dict(), indent=2, sort_keys=True)


def from_json(text: str) -> ConfigDict:
    """Rebuild a config written by `to_json`; options that it lacks have their defaults.

    Raises:
        ConfigError: not JSON, an unknown key, or a value of another type; the message names it.

    Example:
        >>> from satmip_jax.config.conversion import from_json
        >>> from_json('{"seed": 7}').seed
        7
    """
    config = default_config()
    try:
        stored = json.loads(text)
        for key, value in stored.items():
            if isinstance(config[key], ConfigDict):
                for name, entry in value.items():
                    config[key][name] = _of_type(config[key][name], entry, f"{key}.{name}")
            else:
                config[key] = _of_type(config[key], value, key)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ConfigError(f"not a config of this version of satmip: {error}") from error
    return config


def _of_type(default: Any, value: Any, key: str) -> Any:
    """Return a value from JSON with the type of the default.

    Raises:
        TypeError: it has another type.
    """
    if isinstance(default, tuple) and isinstance(value, list):  # JSON has no tuples
        if not default and all(type(entry) is int for entry in value):
            return tuple(value)
        if len(value) == len(default):
            return tuple(map(_of_type, default, value, [key] * len(value)))
    elif type(value) is type(default) or (type(value) is int and type(default) is float):
        return type(default)(value)
    raise TypeError(f"config.{key} is {value!r}; the default is {default!r}")


def differences(old: ConfigDict, new: ConfigDict) -> list[str]:
    """Return a line `key: old -> new` for every value in which two configs differ."""
    return listed(changes(old, new))


def listed(changed: Mapping[str, tuple[Any, Any]]) -> list[str]:
    """Return a line `key: old -> new` for each entry of `changes`."""
    return [f"{key}: {a!r} -> {b!r}" for key, (a, b) in changed.items()]


def changes(old: ConfigDict, new: ConfigDict) -> dict[str, tuple[Any, Any]]:
    """Return the old and the new value of every option in which two configs differ."""

    def flat(config: ConfigDict) -> dict[str, Any]:
        return {
            f"{key}.{name}" if name else key: entry
            for key, value in config.to_dict().items()
            for name, entry in (value.items() if isinstance(value, dict) else [("", value)])
        }

    a, b = flat(old), flat(new)
    return {key: (a[key], b[key]) for key in sorted(a) if a[key] != b[key]}


def vary(config: ConfigDict, changes: Mapping[str, Any]) -> ConfigDict:
    """Return a copy of a config with some values changed.

    Args:
        config: stays as it is.
        changes: "section.option" -> new value.

    Example:
        >>> from satmip_jax.config.conversion import vary
        >>> vary(config, {"method.name": "satmip"}).method.name
        'satmip'
    """
    new = config.copy_and_resolve_references()
    new.update_from_flattened_dict(dict(changes))
    return new
