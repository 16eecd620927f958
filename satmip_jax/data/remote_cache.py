"""Local cache of remote folders, because ArrayRecord reads local files only."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from etils import epath

from satmip_jax.runtime.files import atomic_path


def mirror(
    remote: epath.Path, names: Iterable[str], version: bytes, cache: Path | None = None
) -> epath.Path:
    """Copy files of a remote folder to the local cache, unless they are there, with a progress bar.

    A file appears in the cache when it is complete. If several processes of a machine call this
    at the same time, one copies and the others wait for it.

    Args:
        remote: the folder, read through etils.epath with its credentials.
        names: names of files in that folder.
        version: any bytes that change when the folder is prepared again; each version has a
            folder of its own in the cache.
        cache: root of the cache; by default $SATMIP_CACHE, else ~/.cache/satmip_jax.

    Returns:
        The local folder with the copies.

    Raises:
        OSError: a file cannot be read or written.
    """
    import fcntl

    from tqdm import tqdm

    key = hashlib.sha256(os.fspath(remote).encode() + b"\0" + version).hexdigest()[:24]
    cache = cache or Path(os.environ.get("SATMIP_CACHE") or "~/.cache/satmip_jax").expanduser()
    local = cache / key
    local.mkdir(parents=True, exist_ok=True)
    with (local / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for partial in local.glob(".*.tmp"):
            partial.unlink()  # of a copy that was killed
        sizes = {name: (remote / name).stat().length for name in names}
        missing = [n for n, size in sizes.items() if not _has_size(local / n, size)]
        bar = tqdm(
            desc=f"copying {remote} to {local}",
            total=sum(sizes[name] for name in missing),
            unit="B",
            unit_scale=True,
            disable=not missing,
        )
        with bar:
            for name in missing:
                with (
                    atomic_path(local / name, durable=True) as temporary,
                    (remote / name).open("rb") as source,
                    temporary.open("wb") as copy,
                ):
                    while chunk := source.read(16 << 20):
                        copy.write(chunk)
                        bar.update(len(chunk))
    return epath.Path(local)


def _has_size(path: Path, size: int) -> bool:
    return path.exists() and path.stat().st_size == size
