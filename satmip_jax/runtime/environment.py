"""Hardware and versions of packages, as a record to keep beside results."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax

import satmip_jax
from satmip_jax.runtime import process_pool

PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def environment() -> dict[str, Any]:
    """Return devices of all processes, processor of this one, and versions, as plain JSON.

    The record names neither the machine nor its user.

    Example:
        >>> from satmip_jax.runtime.environment import environment
        >>> environment()
        {'device_kind': ..., 'devices': ..., 'processes': 1, 'processor': ..., 'cores': ...,
        'versions': {'satmip_jax': '0.2.0', 'python': ...}}
    """
    return {
        "device_kind": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "processes": jax.process_count(),
        "processor": processor(),
        "cores": process_pool.cores(),
        "versions": {
            "satmip_jax": satmip_jax.__version__,
            "python": platform.python_version(),
            **package_versions(),
        },
    }


def package_versions(names: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Return the versions of those packages that are installed.

    Example:
        >>> from satmip_jax.runtime.environment import package_versions
        >>> sorted(package_versions(["numpy", "no-such-package"]))
        ['numpy']
    """
    found = {}
    for name in names:
        with suppress(PackageNotFoundError):  # grain is not needed in device memory
            found[name] = version(name)
    return found


def processor() -> str:
    """Return the model name of the CPU; on some systems only its architecture."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except (OSError, UnicodeDecodeError):
        pass  # not Linux
    return platform.processor() or platform.machine()
