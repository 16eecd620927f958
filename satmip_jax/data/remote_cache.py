"""Local cache of remote folders, because ArrayRecord reads local files only.

    $SATMIP_CACHE/<key>/<file>     the copies of one version of a folder
    $SATMIP_CACHE/<key>/.versions  file -> size and version of the object that was copied
    $SATMIP_CACHE/<key>/.lock      locked while files are copied
    $SATMIP_CACHE/<key>/.reading   locked, but shared, by each process that reads them

All processes of a machine share it. Folders that no process reads are deleted, the longest unused
first, when the disk or `$SATMIP_CACHE_GIB` leaves no room for another.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from satmip_jax.errors import SatmipError
from satmip_jax.runtime.files import (
    FileContentError,
    atomic_path,
    read_json_object,
    write_atomically,
)
from satmip_jax.runtime.paths import AnyPath
from satmip_jax.runtime.stores import open_store, store_errors

_CHUNK = 8 << 20  # bytes
_PARALLEL = 8  # files copied at a time
_RESERVE = 1 << 30  # bytes of the disk that are left free
_VERSIONS, _LOCK, _READING = ".versions", ".lock", ".reading"
_reading: dict[Path, int] = {}  # folder that this process reads -> descriptor of its locked file


class CacheError(SatmipError, OSError):
    """Remote data that cannot be copied to the cache; the message says why and what to do."""


def mirror(
    remote: AnyPath, names: Iterable[str], version: bytes, cache: Path | None = None
) -> Path:
    """Copy files of a remote folder to the local cache, unless they are there, with a progress bar.

    A file appears in the cache when it is complete and has the checksum that the store states. If
    several processes of a machine call this at the same time, one copies and the others wait for
    it. The folder is not deleted from the cache while this process lives.

    Args:
        remote: the folder.
        names: names of files in that folder.
        version: any bytes that change when the folder is prepared again; each version has a
            folder of its own in the cache.
        cache: root of the cache; by default $SATMIP_CACHE, else ~/.cache/satmip_jax.

    Returns:
        The local folder with the copies.

    Raises:
        CacheError: there is no room for the files, or one does not arrive intact.
        OSError: a file cannot be read or written.
    """
    key = hashlib.sha256(os.fspath(remote).encode() + b"\0" + version).hexdigest()[:24]
    cache = cache or Path(os.environ.get("SATMIP_CACHE") or "~/.cache/satmip_jax").expanduser()
    local = cache / key
    with _locked(local):
        for partial in local.glob(".*.tmp"):
            partial.unlink()  # of a copy that was killed
        stated = _stated(remote, names)
        copied = _read_versions(local)
        missing = [
            name
            for name, version in stated.items()
            if copied.get(name) != version or not _has_size(local / name, version[0])
        ]
        if missing:
            _make_room(cache, local, sum(stated[name][0] for name in missing), remote)
            _copy(remote, local, {name: stated[name] for name in missing})
            write_atomically(local / _VERSIONS, json.dumps(copied | stated))
    return local


# --- copying --------------------------------------------------------------------------------------


def _stated(remote: AnyPath, names: Iterable[str]) -> dict[str, list[Any]]:
    """Return name -> [size, version of the object, its MD5 in hex or ""], as the store states."""
    store, folder = open_store(remote)
    with store_errors(remote):
        listed = {Path(entry["name"]).name: entry for entry in store.ls(folder, detail=True)}
    stated = {}
    for name in names:
        if name not in listed:
            raise FileNotFoundError(f"no file {os.fspath(remote)}/{name}")
        entry = listed[name]
        tag = str(entry.get("etag") or entry.get("ETag") or "").strip('"')
        version = entry.get("generation") or tag or entry.get("mtime") or ""
        digest = base64.b64decode(entry["md5Hash"]).hex() if entry.get("md5Hash") else ""
        if not digest and "ETag" in entry and len(tag) == 32:  # S3: the MD5, unless in parts
            digest = tag
        stated[name] = [int(entry["size"]), str(version), digest]
    return stated


def _copy(remote: AnyPath, local: Path, stated: Mapping[str, list[Any]]) -> None:
    from tqdm import tqdm

    with (
        tqdm(
            desc=f"copying {os.fspath(remote)} to {local}",
            total=sum(size for size, *_ in stated.values()),
            unit="B",
            unit_scale=True,
        ) as bar,
        ThreadPoolExecutor(_PARALLEL) as pool,
    ):
        copies = [
            pool.submit(_copy_file, remote / name, local / name, digest, size, bar)
            for name, (size, _, digest) in stated.items()
        ]
        try:
            for copy in copies:
                copy.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _copy_file(remote: AnyPath, local: Path, digest: str, size: int, bar: Any) -> None:
    store, name = open_store(remote)
    md5, count = hashlib.md5(usedforsecurity=False), 0
    with (
        store_errors(remote),
        atomic_path(local, durable=True) as temporary,
        store.open(name, "rb", block_size=_CHUNK, cache_type="readahead") as source,
        temporary.open("wb") as copy,
    ):
        while chunk := source.read(_CHUNK):
            md5.update(chunk)
            count += len(chunk)
            copy.write(chunk)
            bar.update(len(chunk))
        if count != size or (digest and md5.hexdigest() != digest):
            raise CacheError(
                f"{os.fspath(remote)} did not arrive intact ({count:,} of {size:,} bytes): was it "
                "written at the same time? Start again"
            )


def _read_versions(local: Path) -> dict[str, Any]:
    with suppress(FileNotFoundError, FileContentError):
        return read_json_object(local / _VERSIONS)
    return {}


def _has_size(path: Path, size: int) -> bool:
    return path.exists() and path.stat().st_size == size


# --- sharing and room -----------------------------------------------------------------------------


@contextmanager
def _locked(local: Path) -> Iterator[None]:
    """Copy to a folder alone in the block; keep it from deletion until this process ends."""
    local.mkdir(parents=True, exist_ok=True)
    if local not in _reading:
        _reading[local] = os.open(local / _READING, os.O_RDWR | os.O_CREAT, 0o666)
        fcntl.flock(_reading[local], fcntl.LOCK_SH)
    os.utime(_reading[local])  # when it was last used
    with (local / _LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _make_room(cache: Path, local: Path, needed: int, remote: AnyPath) -> None:
    """Delete folders that no process reads, the longest unused first, until `needed` bytes fit."""
    others = [path for path in cache.iterdir() if path != local and (path / _READING).is_file()]
    others.sort(key=lambda path: (path / _READING).stat().st_mtime)
    while (room := _room(cache)) < needed:
        if not others:
            raise CacheError(
                f"{os.fspath(remote)} needs {needed / 2**30:.2f} GiB in the cache {cache}, which "
                f"has room for {max(room, 0) / 2**30:.2f}.\nSet SATMIP_CACHE to a folder on a "
                "larger disk, or SATMIP_CACHE_GIB to a larger bound."
            )
        _delete(others.pop(0))


def _room(cache: Path) -> int:
    """Return the bytes that may be added to the cache."""
    room = shutil.disk_usage(cache).free - _RESERVE
    if bound := os.environ.get("SATMIP_CACHE_GIB"):
        used = 0
        for file in cache.glob("*/*"):
            with suppress(FileNotFoundError):  # another process renames or deletes files here
                used += file.stat().st_size
        room = min(room, int(float(bound) * 2**30) - used)
    return room


def _delete(folder: Path) -> None:
    """Delete a folder of the cache, unless a process reads it."""
    lock = os.open(folder / _READING, os.O_RDWR)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return
    else:
        for file in sorted(folder.iterdir()):
            if file.name not in (_LOCK, _READING):  # others may wait for them
                file.unlink()
    finally:
        os.close(lock)
