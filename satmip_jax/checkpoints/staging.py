"""Checkpoints of a workdir in S3, which Orbax cannot write: saved on the disk, then uploaded.

Orbax works in a temporary folder of this machine, so a run in S3 has one process: others would not
see that folder. A checkpoint is uploaded once it has been written, or read back where that is asked
for, and gets its marker at the end, as in gs://.
"""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory

from satmip_jax.checkpoints import folders
from satmip_jax.runtime import stores
from satmip_jax.runtime.paths import AnyPath


def needs_staging(folder: AnyPath) -> bool:
    """Return whether Orbax cannot write to a folder.

    Example:
        >>> from satmip_jax.checkpoints.staging import needs_staging
        >>> needs_staging(Path("runs/eurosat"))
        False
    """
    return os.fspath(folder).startswith("s3:")


class Staging:
    """A folder on the disk with the complete checkpoints of a folder in S3.

    Args:
        remote: the folder in S3.

    Attributes:
        folder: on the disk; it is removed by `close`.

    Raises:
        OSError: a checkpoint cannot be downloaded.
    """

    def __init__(self, remote: AnyPath) -> None:
        self._remote = remote
        self._temporary = TemporaryDirectory(prefix="satmip-checkpoints-")
        self.folder = Path(self._temporary.name) / remote.name
        self.folder.mkdir()
        for step in folders.steps_in(remote):
            stores.get_folder(remote / str(step), self.folder / str(step))

    def upload(self, step: int) -> None:
        """Copy a checkpoint to S3, where it is complete when all its files have arrived.

        Raises:
            OSError: it could not be copied; what has arrived does not count as a checkpoint.
        """
        target = self._remote / str(step)
        folders.withdraw(target)
        stores.put_folder(self.folder / str(step), target)
        stores.put(target / folders.COMMITTED, b"")

    def delete(self, step: int) -> None:
        """Delete a checkpoint in S3."""
        folders.withdraw(self._remote / str(step))
        stores.remove_folder(self._remote / str(step))

    def set_aside(self, steps: list[int]) -> None:
        """Move damaged checkpoints in S3 away, and remove what unfinished uploads have left."""
        folders.set_aside(self._remote, steps)

    def close(self) -> None:
        """Remove the folder on the disk."""
        self._temporary.cleanup()
