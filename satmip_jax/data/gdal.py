"""Images opened by GDAL (rasterio): nothing but the file itself is read, and nothing is printed."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from typing import Any

from satmip_jax.runtime.warning_filters import ignored

TIFF_DRIVER = "GTiff"
_ENVIRONMENT = {
    # World files are left out, too. Not by GDAL_GEOREF_SOURCES=INTERNAL: the transform of a JPEG
    # 2000 that has none is then uninitialized memory (GDAL 3.10).
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_PAM_ENABLED": "NO",
    "GDAL_CACHEMAX": 64,  # MB
    "PROJ_NETWORK": "OFF",
}
_NO_PLACE = "Dataset has no geotransform|The given matrix is equal to Affine.identity"


@contextlib.contextmanager
def open_dataset(
    data: bytes | str, offset: int | None = None, driver: str = TIFF_DRIVER
) -> Iterator[Any]:
    """Open an untrusted image as a `rasterio` data set; threads may do so at the same time.

    Args:
        data: The file in memory, or the path of its descriptor, /dev/fd/N.
        offset: Position of the page of a TIFF; the first by default.
        driver: GDAL's name of the format.

    Raises:
        rasterio.errors.RasterioError: GDAL cannot open it.
    """
    import rasterio
    from rasterio.io import MemoryFile

    with _QUIET, rasterio.Env(**_ENVIRONMENT), contextlib.ExitStack() as stack:
        name = data if isinstance(data, str) else stack.enter_context(MemoryFile(data)).name
        if offset is not None and driver == TIFF_DRIVER:
            name = f"GTIFF_DIR:off:{offset}:{name}"
        with rasterio.open(name, driver=driver) as dataset:
            yield dataset


class _Quiet:
    """No warning of images without a place, no traceback of rasterio's logger.

    Hooks belong to the process: of threads that overlap, the first to come changes them, and the
    last to leave puts them back.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if not self._users:
                self._stack.enter_context(_quiet_process())
            self._users += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            if not self._users:
                self._stack.close()


_QUIET = _Quiet()


@contextlib.contextmanager
def _quiet_process() -> Iterator[None]:
    from rasterio.errors import NotGeoreferencedWarning

    hooks = excepthook, unraisablehook = sys.excepthook, sys.unraisablehook

    # the logger fails where GDAL's message quotes bytes of the file; all else is still printed
    def on_exception(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        if not issubclass(kind, UnicodeDecodeError):
            excepthook(kind, error, trace)

    def on_unraisable(event: Any) -> None:
        if not issubclass(event.exc_type, UnicodeDecodeError):
            unraisablehook(event)

    sys.excepthook, sys.unraisablehook = on_exception, on_unraisable
    try:
        with ignored(_NO_PLACE, NotGeoreferencedWarning):
            yield
    finally:
        sys.excepthook, sys.unraisablehook = hooks
