"""The folder that a run's logs are written in: the workdir, or for a bucket a copy on the disk.

A store has no appends. The logs of a run in a bucket are files of a temporary folder, and are
uploaded whole: before each checkpoint, and once a minute. A checkpoint is ahead of them only if
that upload failed, which is logged.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

from satmip_jax.runtime import stores
from satmip_jax.runtime.paths import AnyPath, is_remote, local_path

log = logging.getLogger(__name__)

INTERVAL = 60.0  # seconds between two uploads without a checkpoint


class LogFolder:
    """The logs of a workdir as local files.

    Args:
        workdir: folder of the run.
        names: files that a new start of the run continues.

    Attributes:
        path: the local folder to write in.
    """

    def __init__(self, workdir: AnyPath, names: Iterable[str]) -> None:
        self._workdir = workdir
        self._uploaded: dict[Path, tuple[int, int]] = {}
        self._last, self._failing = time.monotonic(), False
        self._temporary: TemporaryDirectory[str] | None = None
        if not is_remote(workdir):
            self.path = local_path(workdir, "workdir")
            return
        self._temporary = TemporaryDirectory(prefix="satmip-log-")
        self.path = Path(self._temporary.name)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="log-upload")
        self._pending: Future[None] | None = None
        for name in names:
            if (workdir / name).is_file():
                (self.path / name).write_bytes(stores.get(workdir / name))

    def upload(self) -> None:
        """Upload what has changed; a failure is logged, and made up for by the next upload."""
        if self._temporary is not None:
            if self._pending is not None:
                self._pending.result()
            self._upload()

    def upload_now_and_then(self) -> None:
        """Start an upload in the background if the last one was some time ago."""
        if self._temporary is None or time.monotonic() < self._last + INTERVAL:
            return
        if self._pending is None or self._pending.done():
            self._last = time.monotonic()
            self._pending = self._pool.submit(self._upload)

    def close(self) -> None:
        """Upload the rest, and remove the temporary folder."""
        if self._temporary is not None:
            self.upload()
            self._pool.shutdown()
            self._temporary.cleanup()
            self._temporary = None

    def _upload(self) -> None:
        self._last = time.monotonic()
        try:
            for file in sorted(self.path.rglob("*")):
                state = file.stat()
                version = (state.st_size, state.st_mtime_ns)
                if file.is_file() and self._uploaded.get(file) != version:
                    relative = file.relative_to(self.path).as_posix()
                    stores.put(self._workdir / relative, file.read_bytes()[: version[0]])
                    self._uploaded[file] = version
        except OSError as error:
            if not self._failing:
                log.warning(
                    f"logs could not be written to {self._workdir}: {error}\n"
                    "  Training continues; the next upload is another attempt."
                )
            self._failing = True
        else:
            self._failing = False
