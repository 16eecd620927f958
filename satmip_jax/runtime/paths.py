"""Paths that users give: of local files, or of objects in a bucket (gs://, s3://).

`as_path` and `local_path` are the only places where the text of a user becomes a path.
"""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from satmip_jax.errors import SatmipError

if TYPE_CHECKING:
    from etils import epath

    AnyPath: TypeAlias = Path | epath.Path
else:
    AnyPath: TypeAlias = os.PathLike  # for checks of types at runtime; etils is imported on demand

STORES = {"gs": "gcs", "s3": "s3"}  # scheme -> extra of this package with its client
_CLIENTS = {"gs": "gcsfs", "s3": "s3fs"}  # scheme -> module of its client
SILENCE = 30  # seconds without a byte after which a request to gs:// is repeated
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


def as_path(path: str | os.PathLike[str]) -> AnyPath:
    """Return a local path as a `pathlib.Path`, and one in a bucket as an `etils.epath.Path`.

    Nothing is read; see `stores.check_access`.

    Args:
        path: given by the user.

    Raises:
        PathError: a URL of another kind, without a bucket, or whose client is not installed.

    Example:
        >>> from satmip_jax.runtime.paths import as_path
        >>> as_path("runs/eurosat")
        PosixPath('runs/eurosat')
    """
    text = os.fspath(path)
    url = _URL.match(text)
    if url is None:
        return Path(path)
    scheme, rest = url[1].lower(), text[url.end() :]
    if scheme not in STORES:
        raise PathError(f"{text}: give a path on a local disk, or a URL of gs:// or s3://")
    if not rest.strip("/"):
        raise PathError(f"{text}: name a bucket, as in {scheme}://bucket/folder")
    _import_client(scheme, text)
    from etils import epath

    return epath.Path(f"{scheme}://{rest.rstrip('/')}")


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


def absolute(path: AnyPath) -> AnyPath:
    """Return a path that does not depend on the working directory."""
    return path if is_remote(path) else path.resolve()


def make_folder(path: AnyPath) -> None:
    """Make a folder and those above it, unless they exist; a bucket needs none.

    Raises:
        OSError: it cannot be made.
    """
    if not is_remote(path):
        path.mkdir(parents=True, exist_ok=True)


def file_size(path: AnyPath) -> int:
    """Return the size of a file, in bytes.

    Raises:
        OSError: it is missing (FileNotFoundError) or cannot be read.
    """
    stat: Any = path.stat()
    return int(stat.length if hasattr(stat, "length") else stat.st_size)  # epath: length


def _import_client(scheme: str, text: str) -> None:
    """Import the client of a store, with bounded waiting and without a cache of listings."""
    import importlib

    try:
        importlib.import_module(_CLIENTS[scheme])
    except ImportError as error:
        raise PathError(
            f'{text} needs {_CLIENTS[scheme]} ({error}): pip install "satmip-jax[{STORES[scheme]}]"'
        ) from error
    import fsspec

    os.environ.setdefault("EPATH_USE_TF", "false")  # one client, also where TensorFlow is installed
    for name in ("gcsfs", "google.auth"):  # tracebacks of errors that are raised as well
        logging.getLogger(name).setLevel(logging.CRITICAL)
    for name in ("gcs", "gs", "s3"):  # other processes write there, too
        fsspec.config.conf.setdefault(name, {})["use_listings_cache"] = False
    if scheme == "gs":
        _bound_waiting()


def _bound_waiting() -> None:
    """Let gcsfs and tensorstore, which by default wait forever, give up a silent connection."""
    import aiohttp
    import fsspec

    timeout = aiohttp.ClientTimeout(sock_connect=SILENCE, sock_read=SILENCE)
    for name in ("gcs", "gs"):
        fsspec.config.conf[name].setdefault("requests_timeout", timeout)
    os.environ.setdefault("TENSORSTORE_CURL_CONNECT_TIMEOUT_SECONDS", str(SILENCE))
    os.environ.setdefault("TENSORSTORE_CURL_LOW_SPEED_TIME_SECONDS", str(SILENCE))
    os.environ.setdefault("TENSORSTORE_CURL_LOW_SPEED_LIMIT_BYTES", "1")
