"""Compiled programs are kept on disk, so that a run that starts again need not compile them."""

from __future__ import annotations

import os
from pathlib import Path

import jax

FOLDER = "jax_compilation_cache_dir"  # an option of JAX, unset by default


def enable() -> None:
    """Keep what takes over a second to compile in the user's cache, unless JAX is told otherwise.

    $JAX_COMPILATION_CACHE_DIR names another folder, JAX_ENABLE_COMPILATION_CACHE=false keeps
    nothing.
    """
    if getattr(jax.config, FOLDER) is None:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update(FOLDER, str(cache / "satmip_jax" / "xla"))
