"""Atomic writes, and JSON files read with a bound on their size, on disks and in buckets.

A reader of a file written here sees the old content or the new one, never a part: the bytes go to
a temporary file in the same folder, which is then renamed. An object in a bucket appears at once.
"""

from __future__ import annotations

import fcntl
import json
import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from satmip_jax.errors import SatmipError
from satmip_jax.runtime import stores
from satmip_jax.runtime.paths import as_path, file_size, is_remote

MAX_JSON_BYTES = 64 << 20
MAX_JSON_DEPTH = 100  # what walks a value recursively stays far from Python's limit


class FileContentError(SatmipError, ValueError):
    """A file that is too large, or does not hold what it should; the message names it."""


@contextmanager
def atomic_path(path: str | os.PathLike[str], *, durable: bool = False) -> Iterator[Path]:
    """Yield a temporary path, and rename it to `path` when the block ends without an error.

    The temporary file is removed when the block raises. The folder must exist. For a path in a
    bucket, the temporary file is in a folder for such files, and is uploaded.

    Args:
        path: the final path, on a local or mounted file system, or in a bucket.
        durable: wait until the bytes have reached the disk before the rename, so that a crash of
            the machine cannot leave an empty or partial file under the final name.

    Raises:
        OSError: the file cannot be written, for example on a full disk.

    Example:
        >>> from satmip_jax.runtime.files import atomic_path
        >>> with atomic_path("features.npy") as temporary, temporary.open("wb") as file:
        ...     np.save(file, np.zeros((4, 2), np.float32))
        >>> np.load("features.npy").shape
        (4, 2)
    """
    if is_remote(path):
        with TemporaryDirectory(prefix="satmip-") as folder:
            remote = as_path(path)
            local = Path(folder) / remote.name
            yield local
            stores.put_file(local, remote)
        return
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        yield temporary
        if durable:
            replace_durably(temporary, path)
        else:
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(
    path: str | os.PathLike[str], data: bytes | str, *, durable: bool = False
) -> None:
    """Write `data` to `path` at once or not at all; text is encoded as UTF-8.

    Args:
        path: the final path; its folder must exist.
        data: the content of the file.
        durable: see `atomic_path`.

    Raises:
        OSError: the file cannot be written, for example on a full disk.

    Example:
        >>> from satmip_jax.runtime.files import read_json, write_atomically
        >>> write_atomically("scores.json", '{"accuracy": 0.5}')
        >>> read_json("scores.json")
        {'accuracy': 0.5}
    """
    content = data.encode() if isinstance(data, str) else data
    if is_remote(path):
        stores.put(as_path(path), content)
        return
    with atomic_path(path, durable=durable) as temporary:
        temporary.write_bytes(content)


@contextmanager
def one_at_a_time(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Let one process or thread at a time run the block, of those that name the same folder.

    In a bucket, and on file systems without locks, all run it.

    Args:
        folder: an existing folder, which is locked; nothing is written there.
    """
    if is_remote(folder):
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def replace_durably(temporary: Path, path: Path) -> None:
    """Rename a finished file to `path`, after its bytes have reached the disk."""
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)


def read_bounded(path: str | os.PathLike[str], max_bytes: int) -> bytes:
    """Return the bytes of a file, unless it is larger than `max_bytes`.

    Args:
        path: a local path, or one in a bucket.
        max_bytes: largest size to read.

    Raises:
        OSError: the file is missing (FileNotFoundError) or cannot be read.
        FileContentError: the file is larger than `max_bytes`.
    """
    source: Any = as_path(path)
    data = b""
    with stores.store_errors(source):
        size = file_size(source)
    if size <= max_bytes:
        with stores.store_errors(source), source.open("rb") as file:
            data = file.read(max_bytes + 1)  # it may have grown
    if max(size, len(data)) > max_bytes:
        raise FileContentError(f"{path} has {size:,} bytes, more than the limit of {max_bytes:,}")
    return data


def read_json(
    path: str | os.PathLike[str], *, max_bytes: int = MAX_JSON_BYTES, allow_nan: bool = True
) -> Any:
    """Return the value in a JSON file of at most `max_bytes`.

    Args:
        path: a local path, or one in a bucket.
        max_bytes: largest size to read.
        allow_nan: accept NaN and Infinity, which Python writes but JSON does not know.

    Raises:
        OSError: the file is missing (FileNotFoundError) or cannot be read.
        FileContentError: the file is too large, not JSON in UTF-8, or nested too deeply.
    """
    data = read_bounded(path, max_bytes)
    too_deep = f"{path}: JSON of more than {MAX_JSON_DEPTH} levels"
    try:
        value = json.loads(data, parse_constant=None if allow_nan else _refuse_constant)
    except RecursionError:  # how many levels it allows depends on the version of Python
        raise FileContentError(too_deep) from None
    except ValueError as error:  # errors of JSON and UTF-8 are ValueErrors
        raise FileContentError(f"{path} is not JSON: {error}") from None
    level = [value]
    for _ in range(MAX_JSON_DEPTH):
        level = [child for parent in level for child in _children(parent)]
        if not level:
            return value
    raise FileContentError(too_deep)


def _children(value: Any) -> Iterable[Any]:
    """Return the elements of a list or object that are lists or objects themselves."""
    elements = value.values() if isinstance(value, dict) else value
    containers = (dict, list)
    return (
        [x for x in elements if isinstance(x, containers)] if isinstance(value, containers) else ()
    )


def read_json_object(
    path: str | os.PathLike[str], *, max_bytes: int = MAX_JSON_BYTES, allow_nan: bool = True
) -> dict[str, Any]:
    """Return the object in a JSON file; arguments and errors are those of `read_json`."""
    data = read_json(path, max_bytes=max_bytes, allow_nan=allow_nan)
    if not isinstance(data, dict):
        raise FileContentError(f"{path} holds a {type(data).__name__}: expected an object")
    return data


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is not a JSON number")
