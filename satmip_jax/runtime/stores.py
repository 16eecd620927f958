"""Objects in buckets (gs://, s3://), through fsspec: what `etils.epath` does not offer.

A store has no renames and no appends, but an object appears at once and whole, so a plain write is
atomic there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from satmip_jax.errors import SatmipError
from satmip_jax.runtime.paths import AnyPath, is_remote

_HINTS = {
    "gs": "log in with `gcloud auth application-default login`, or set "
    "GOOGLE_APPLICATION_CREDENTIALS to the key of a service account that may use it",
    "s3": "log in with `aws configure`, or set AWS_PROFILE or AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY",
}
_MAX_REASON = 300  # characters


class StoreError(SatmipError, OSError):
    """A bucket that cannot be read or written; the message says which and what to do."""


def open_store(path: AnyPath) -> tuple[Any, str]:
    """Return the `fsspec` file system of a path, and the path as it knows it."""
    import fsspec

    return fsspec.core.url_to_fs(os.fspath(path))


def check_access(path: AnyPath) -> None:
    """Raise `StoreError` unless the bucket of a path can be listed; local paths always pass.

    One request; call it before anything that takes time.
    """
    if not is_remote(path):
        return
    store, name = open_store(path)
    url, bucket = os.fspath(path), name.split("/")[0]
    scheme = url.partition(":")[0]
    try:
        if scheme == "gs":
            store.call("GET", "b/{}/o", bucket, maxResults=1, json_out=True)
        else:
            store.call_s3("list_objects_v2", Bucket=bucket, MaxKeys=1)
    except FileNotFoundError as error:
        raise StoreError(
            f"there is no bucket {scheme}://{bucket}, or it may not be listed.\n"
            f"Create it, or correct the path {url}."
        ) from error
    except Exception as error:  # of gcsfs, google.auth, aiohttp, botocore
        raise StoreError(
            f"{scheme}://{bucket} cannot be accessed: {_reason(error)}.\n"
            f"If you have access, {_HINTS[scheme]}."
        ) from error


@contextmanager
def store_errors(path: AnyPath) -> Iterator[None]:
    """Raise errors of the clients of stores as `StoreError`, so that they are `OSError`s."""
    try:
        yield
    except TimeoutError as error:  # its text is empty
        raise StoreError(f"{os.fspath(path)}: the store does not answer") from error
    except (OSError, SatmipError):
        raise
    except Exception as error:
        module = type(error).__module__.partition(".")[0]
        if module not in (
            "gcsfs",
            "google",
            "aiohttp",
            "requests",
            "botocore",
            "asyncio",
            "fsspec",
        ):
            raise
        raise StoreError(f"{os.fspath(path)}: {_reason(error)}") from error


def put(path: AnyPath, data: bytes) -> None:
    """Write an object, at once; in gs:// once more if the store reports another checksum.

    Raises:
        StoreError: it could not be written, or differs afterwards.
    """
    store, name = open_store(path)
    _write_checked(path, partial(store.pipe_file, name, data))


def put_file(local: Path, path: AnyPath) -> None:
    """Upload a file, which appears when it is complete; checked and repeated as by `put`.

    Raises:
        StoreError: it could not be written, or differs afterwards.
    """
    store, name = open_store(path)
    _write_checked(path, partial(store.put_file, os.fspath(local), name))
    with store_errors(path):
        size, stored = local.stat().st_size, store.info(name)["size"]
    if size != stored:
        raise StoreError(f"{os.fspath(path)}: {stored:,} of {size:,} bytes arrived")


def _write_checked(path: AnyPath, write: Callable[..., None]) -> None:
    if not (_arrives(path, write) or _arrives(path, write)):
        raise StoreError(f"{os.fspath(path)} arrived with another checksum, twice")


def _arrives(path: AnyPath, write: Callable[..., None]) -> bool:
    """Write an object; return False if gs:// reports another checksum afterwards."""
    with store_errors(path):
        if not os.fspath(path).startswith("gs:"):
            write()
            return True
        from gcsfs.retry import ChecksumError

        with suppress(ChecksumError):
            write(consistency="md5")
            return True
    return False


def get(path: AnyPath) -> bytes:
    """Return the content of an object, which should be small.

    Raises:
        FileNotFoundError: there is none.
    """
    store, name = open_store(path)
    with store_errors(path):
        return bytes(store.cat_file(name))


def create(path: AnyPath, data: bytes) -> bool:
    """Write an object unless it exists; of several processes that try, one succeeds.

    Args:
        path: of the object.
        data: must differ between processes, so that a repeated request is recognized.

    Returns:
        Whether this call has written it.
    """
    store, name = open_store(path)
    try:
        if not _arrives(path, partial(store.pipe_file, name, data, mode="create")):
            put(path, data)  # the object is this call's, but its content is not
    except FileExistsError:
        return get(path) == data  # a first request arrived, and its answer was lost
    return True


def names_in(folder: AnyPath) -> list[str]:
    """Return the names of the files and folders in a folder, sorted; none if there is no folder."""
    store, name = open_store(folder)
    with store_errors(folder):
        try:
            listed = store.ls(name, detail=False)
        except FileNotFoundError:
            return []
    return sorted({Path(entry.rstrip("/")).name for entry in listed if entry.rstrip("/") != name})


def put_folder(local: Path, path: AnyPath) -> None:
    """Upload all files below a folder."""
    for file in sorted(local.rglob("*")):
        if file.is_file():
            put_file(file, path / file.relative_to(local).as_posix())


def get_folder(path: AnyPath, local: Path) -> None:
    """Download all objects below a folder."""
    store, name = open_store(path)
    with store_errors(path):
        for entry in store.find(name):
            file = local / entry.removeprefix(name).lstrip("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            store.get_file(entry, os.fspath(file))


def copy_folder(folder: AnyPath, target: AnyPath) -> None:
    """Copy all objects below a folder, within the store."""
    store, name = open_store(folder)
    _, new = open_store(target)
    with store_errors(folder):
        for entry in store.find(name):
            store.cp_file(entry, new + entry.removeprefix(name))


def remove_folder(folder: AnyPath) -> None:
    """Remove all objects below a folder, if there are any."""
    store, name = open_store(folder)
    with store_errors(folder):
        for entry in store.find(name):
            with suppress(FileNotFoundError):
                store.rm_file(entry)


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text.rstrip(".")[:_MAX_REASON]
