"""Cache of compiled programs on disk: later runs and evaluations need not compile them again."""

from __future__ import annotations

import os
from pathlib import Path

import jax

FOLDER = "jax_compilation_cache_dir"  # an option of JAX, unset by default


def enable() -> None:
    """Cache programs that take over a second to compile, in the user's cache folder.

    The environment variables of JAX take precedence: $JAX_COMPILATION_CACHE_DIR sets another
    folder, and JAX_ENABLE_COMPILATION_CACHE=false turns the cache off.
    """
    if getattr(jax.config, FOLDER) is None:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update(FOLDER, str(cache / "satmip_jax" / "xla"))
