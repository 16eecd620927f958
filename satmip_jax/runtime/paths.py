"""Paths that users give: of local files, or of objects in a bucket (gs://, s3://)."""

from __future__ import annotations

import os
import re
from pathlib import Path

from satmip_jax.errors import SatmipError

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+")  # pathlib joins the slashes of a URL


class PathError(SatmipError, ValueError):
    """A path that cannot be used here; the message says what to give instead."""


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Return whether a path is a URL, such as gs://bucket/eurosat.

    Example:
        >>> from satmip_jax.runtime.paths import is_remote
        >>> is_remote("gs://bucket/eurosat"), is_remote("runs/eurosat")
        (True, False)
    """
    return _URL.match(os.fspath(path)) is not None


def local_path(path: str | os.PathLike[str], what: str) -> Path:
    """Return a path as a `pathlib.Path`, which would take a URL for the name of a local folder.

    Args:
        path: given by the user.
        what: the option, or what the path is for, in messages.

    Raises:
        PathError: the path is a URL.

    Example:
        >>> from satmip_jax.runtime.paths import local_path
        >>> local_path("runs/eurosat", "--workdir").name
        'eurosat'
    """
    if is_remote(path):
        raise PathError(f"{what} {os.fspath(path)}: must be on a local disk, not at a URL")
    return Path(path)
