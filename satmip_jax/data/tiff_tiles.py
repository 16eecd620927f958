"""Tiles of untrusted TIFFs and JPEG 2000, read through windows: a file need not fit into memory.

A tile is a TIFF of its own with the bands, values and NoData of the file, so that it is rendered
and scaled like any other image.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from affine import Affine

from satmip_jax.data import jp2, tiff
from satmip_jax.data.gdal import open_dataset
from satmip_jax.data.headers import MAX_PIXELS
from satmip_jax.data.image_errors import ImageError

MAX_TILE = 4096  # pixels
MAX_TILES = 1_000_000  # of a file
_LIMIT = 3 * MAX_PIXELS  # bytes
_WHOLE_BITS = (8, 16, 32, 64)


class Window(NamedTuple):
    """Part of an image, in pixels."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True)
class TiffImage:
    """An open TIFF or JPEG 2000.

    Attributes:
        page: Header of the page that is the image.
        dataset: That page as a `rasterio` data set.
    """

    page: tiff.Page
    dataset: Any

    def windows(self, tile: int, stride: int) -> list[Window]:
        """Return the tiles by row, see `tile_windows`."""
        return tile_windows(self.page.width, self.page.height, tile, stride)

    def has_gaps(self) -> bool:
        """Whether pixels may be missing: by NoData, a mask, an alpha band, or as NaN."""
        flags = self.dataset.mask_flag_enums
        complete = all([flag.name for flag in band] == ["all_valid"] for band in flags)
        return not complete or self.page.dtype.startswith("float")

    def data_share(self, window: Window) -> float:
        """Return the share of the pixels of a window that are not missing; 1 if it is damaged."""
        try:
            self._check_size(window)
            valid = self.dataset.dataset_mask(window=_ranges(window)) > 0
            if self.page.dtype.startswith("float"):
                valid &= np.isfinite(self.dataset.read(1, window=_ranges(window)))
        except Exception:  # of many types; reading the tile tells which
            return 1.0
        return float(valid.mean())

    def read_tile(self, window: Window) -> bytes:
        """Return a window as an uncompressed TIFF.

        Raises:
            ImageError: The window is damaged, or its values are neither grey, RGB nor real bands.
        """
        from rasterio.io import MemoryFile

        page, dataset = self.page, self.dataset
        tiff.check_values(page)
        self._check_size(window)
        profile: dict[str, Any] = {
            "width": window.width,
            "height": window.height,
            "count": dataset.count,
            "dtype": dataset.dtypes[0],
            "nodata": dataset.nodata,
            "interleave": "band" if page.planar else "pixel",
            "transform": Affine(1, 0, 0, 0, -1, 0),  # rasterio warns of the identity
        }
        if page.bits not in _WHOLE_BITS:
            profile["nbits"] = page.bits
        if page.photometric == 0:
            profile["photometric"] = "MINISWHITE"
        try:
            values = dataset.read(window=_ranges(window))
            with MemoryFile() as file:
                with file.open(driver="GTiff", **profile) as copy:
                    if page.photometric == 3 and page.bits <= 8:
                        copy.write_colormap(1, dataset.colormap(1))
                    elif page.photometric != 0:
                        copy.colorinterp = dataset.colorinterp
                    copy.write(values)
                return bytes(file.getbuffer())
        except MemoryError:
            raise
        except Exception as error:  # rasterio raises many types
            raise ImageError(tiff.failure_reason(error, page)) from error

    def _check_size(self, window: Window) -> None:
        size = window.width * window.height * self.page.bands * -(-self.page.bits // 8)
        if size > _LIMIT:
            raise ImageError(
                f"tiles of {self.page.bands} bands of {self.page.dtype} take {size:,} bytes, more "
                f"than the limit of {_LIMIT:,}: choose a smaller --tile"
            )


def is_raster(data: bytes | mmap.mmap) -> bool:
    r"""Whether a file begins like those that `open_tiff` reads.

    Example:
        >>> from satmip_jax.data.tiff_tiles import is_raster
        >>> is_raster(b"II*\0"), is_raster(b"\x89PNG")
        (True, False)
    """
    return data[:4] in tiff.MAGIC or jp2.is_jp2(data)


@contextlib.contextmanager
def open_tiff(data: bytes | str) -> Iterator[TiffImage]:
    """Open an untrusted TIFF or JPEG 2000; its blocks are bounded before GDAL sees it.

    Args:
        data: The file, or its path.

    Raises:
        ImageError: It is damaged, or it is not clear which page is the image.
        OSError: It cannot be read.

    Example:
        >>> import cv2
        >>> from satmip_jax.data.tiff_tiles import open_tiff
        >>> data = cv2.imencode(".tif", np.ones((50, 70, 3), np.uint8))[1].tobytes()
        >>> with open_tiff(data) as image:
        ...     tiles = image.windows(tile=40, stride=40)
        ...     part = image.read_tile(tiles[3])
        >>> tiles[3]
        Window(x=30, y=10, width=40, height=40)
    """
    with contextlib.ExitStack() as stack:
        buffer: bytes | mmap.mmap
        name: bytes | str
        if isinstance(data, bytes):
            buffer, name = data, data
        else:
            descriptor = os.open(data, os.O_RDONLY | os.O_NONBLOCK)  # a pipe would wait
            stack.callback(os.close, descriptor)
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ImageError("not a regular file")
            if not os.fstat(descriptor).st_size:
                raise ImageError("empty file")
            buffer = stack.enter_context(mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ))
            name = f"/dev/fd/{descriptor}"
        if not is_raster(buffer):
            raise ImageError("not a TIFF or JPEG 2000 file")
        page = jp2.read_page(buffer) if jp2.is_jp2(buffer) else tiff.read_page(buffer)
        tiff.check_blocks(page, len(buffer), _LIMIT)
        try:
            dataset = stack.enter_context(_open_page(name, page))
        except ImageError:
            raise
        except Exception as error:  # rasterio raises many types
            raise ImageError(tiff.failure_reason(error, page)) from error
        yield TiffImage(page, dataset)


def tile_windows(width: int, height: int, tile: int, stride: int) -> list[Window]:
    """Return the tiles that cover an image, by row; the last ones are shifted to end at its border.

    Args:
        width: Width of the image.
        height: Height of the image.
        tile: Side of a tile. A side of the image that is smaller is taken whole.
        stride: Distance between tiles. If it is larger than a tile, parts are left out.

    Raises:
        ImageError: There are more than `MAX_TILES`.

    Example:
        >>> from satmip_jax.data.tiff_tiles import tile_windows
        >>> [tuple(window) for window in tile_windows(500, 200, tile=224, stride=200)]
        [(0, 0, 224, 200), (200, 0, 224, 200), (276, 0, 224, 200)]
    """
    if -(-width // stride) * -(-height // stride) > MAX_TILES:
        raise ImageError(f"{width}x{height} pixels make more than {MAX_TILES:,} tiles")
    across, down = min(tile, width), min(tile, height)
    return [
        Window(x, y, across, down)
        for y in _starts(height, down, stride)
        for x in _starts(width, across, stride)
    ]


def _starts(length: int, tile: int, stride: int) -> list[int]:
    starts = list(range(0, length - tile + 1, stride))
    if starts[-1] + max(tile, stride) < length:
        starts.append(length - tile)
    return starts


@contextlib.contextmanager
def _open_page(name: bytes | str, page: tiff.Page) -> Iterator[Any]:
    # without a position the page has its mask; the image is nearly always the first page
    for offset in (None, page.offset):
        with open_dataset(name, offset, page.driver) as dataset:
            if (dataset.width, dataset.height) == (page.width, page.height):
                if dataset.count != page.bands and page.photometric != 6:
                    raise ImageError(f"damaged {page.format}")
                yield dataset
                return
    raise ImageError(f"damaged {page.format}")


def _ranges(window: Window) -> tuple[tuple[int, int], tuple[int, int]]:
    return (window.y, window.y + window.height), (window.x, window.x + window.width)
