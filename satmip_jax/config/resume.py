"""Options that a resumed run may change, because they do not change its result."""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

from satmip_jax.config.conversion import changes

# Names of options; a section with a "." stands for all of its options.
FREE = (
    "log_every",
    "eval.",
    "checkpoint.",
    "data.workers",
    "data.bad_records",
    "data.in_memory",
)
LOCATION = "data.dir"  # may change if the data are the same


def result_changes(old: ConfigDict, new: ConfigDict) -> dict[str, tuple[Any, Any]]:
    """Return the options whose values differ and change the result, with both values.

    The place of the data is not among them: the caller compares the data.

    Args:
        old: config of the run.
        new: config to resume it with.

    Example:
        >>> from satmip_jax.config.conversion import vary
        >>> from satmip_jax.config.resume import result_changes
        >>> result_changes(config, vary(config, {"log_every": 7, "seed": 3}))
        {'seed': (0, 3)}
    """
    return {
        key: values
        for key, values in changes(old, new).items()
        if key != LOCATION and not any(key == free or key.startswith(free) for free in FREE)
    }
