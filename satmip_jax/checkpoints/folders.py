"""Folders of checkpoints: which are complete, and how they are removed, on disks and in buckets.

On a disk Orbax renames a folder when it is complete. In a bucket, which has no renames, it writes
a marker into the folder at the end; a folder without it is not a checkpoint.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable
from pathlib import Path

from satmip_jax.runtime import stores
from satmip_jax.runtime.paths import AnyPath, is_remote

COMMITTED = "commit_success.txt"  # Orbax's marker


def is_complete(folder: AnyPath) -> bool:
    """Return whether the folder of a checkpoint exists and was written to its end."""
    if not is_remote(folder):
        return folder.is_dir()
    with stores.store_errors(folder):
        return (folder / COMMITTED).is_file()


def steps_in(folder: AnyPath) -> list[int]:
    """Return the steps of the complete checkpoints in a folder, the newest first."""
    if is_remote(folder):
        names = stores.names_in(folder)
    else:
        names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    steps = [int(name) for name in names if name.isdecimal()]
    complete = [step for step in steps if not is_remote(folder) or is_complete(folder / str(step))]
    return sorted(complete, reverse=True)


def withdraw(folder: AnyPath) -> None:
    """Let a checkpoint in a bucket no longer count as complete, before its files are removed."""
    if is_remote(folder):
        with stores.store_errors(folder):
            (folder / COMMITTED).unlink(missing_ok=True)


def move(folder: AnyPath, target: AnyPath) -> None:
    """Move the folder of a checkpoint, and replace what is at the target."""
    if is_remote(folder):
        withdraw(folder)
        stores.remove_folder(target)
        stores.copy_folder(folder, target)
        stores.remove_folder(folder)
        return
    assert isinstance(folder, Path)
    assert isinstance(target, Path)
    target.parent.mkdir(exist_ok=True)
    shutil.rmtree(target, ignore_errors=True)
    folder.rename(target)


def set_aside(folder: AnyPath, damaged: Iterable[int]) -> None:
    """Move damaged checkpoints to a folder `damaged`, and remove what unfinished saves have left.

    Args:
        folder: of all checkpoints, in the workdir.
        damaged: their steps.
    """
    for step in damaged:
        if is_complete(folder / str(step)):
            move(folder / str(step), folder.parent / "damaged" / str(step))
    for _ in range(50):  # writers that have not failed may continue for a moment
        if not remove_incomplete(folder):
            break
        time.sleep(0.1)


def remove_incomplete(folder: AnyPath) -> bool:
    """Remove what unfinished saves have left in a folder; return whether there was anything."""
    if is_remote(folder):
        steps = [folder / name for name in stores.names_in(folder) if name.isdecimal()]
        left = [step for step in steps if not is_complete(step)]
        for unfinished in left:
            stores.remove_folder(unfinished)
        return bool(left)
    local = list(folder.glob("*.orbax-checkpoint-tmp*"))
    for path in local:
        shutil.rmtree(path, ignore_errors=True)
    return bool(local)
