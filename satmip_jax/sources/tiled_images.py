"""Images of untrusted files with what a GeoTIFF says about them, whole or in tiles.

Sources of georeferenced data share these steps: GeoTIFFs in folders, and assets of STAC items.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from satmip_jax.data.image_errors import ImageError
from satmip_jax.data.tiff_tiles import MAX_TILE, Window, is_raster, open_tiff
from satmip_jax.sources.archives import Archives
from satmip_jax.sources.base import SourceError, UnreadableExample
from satmip_jax.sources.geotiff_fields import read_fields, read_footprint

MAX_IMAGE_BYTES = 1 << 30
MAX_ZIPPED_BYTES = 256 << 20  # of a GeoTIFF in a zip that is cut into tiles


class Tiles:
    """Size and positions of tiles.

    Args:
        tile: Side of a tile in pixels; 0 takes images whole.
        stride: Distance between tiles; 0 for that of their side.
        min_data: Minimum share of pixels that are not missing; without any, a tile is left out.

    Raises:
        SourceError: A number is out of range.

    Example:
        >>> from satmip_jax.sources.tiled_images import Tiles
        >>> Tiles(tile=224, stride=0, min_data=0.0).stride
        224
    """

    def __init__(self, tile: int, stride: int, min_data: float) -> None:
        if tile and not 8 <= tile <= MAX_TILE:
            raise SourceError(f"--tile {tile}: must be from 8 to {MAX_TILE} pixels, or 0 for none")
        if stride < 0 or (stride and not tile):
            raise SourceError(f"--stride {stride}: must be above zero, and needs --tile")
        if not 0 <= min_data <= 1:
            raise SourceError(f"--min-data {min_data:g}: must be from 0 to 1")
        self.tile, self.stride, self.min_data = tile, stride or tile, min_data

    def windows(self, data: bytes | str, skipped: Counter[str]) -> Iterator[Window]:
        """Yield the tiles of a file; count those that miss too many pixels.

        Raises:
            UnreadableExample: The file cannot be read as a TIFF.
        """
        try:
            with open_tiff(data) as image:
                windows = image.windows(self.tile, self.stride)
                gaps = image.has_gaps()
                for window in windows:
                    share = image.data_share(window) if gaps else 1.0
                    if not share:
                        skipped["tile without data"] += 1
                    elif share < self.min_data:
                        skipped[f"tile with data in less than {self.min_data:.0%}"] += 1
                    else:
                        yield window
        except ImageError as error:
            raise UnreadableExample(str(error)) from error
        except OSError as error:
            raise UnreadableExample(f"cannot be read: {error.strerror}") from error


class TaggedImage(NamedTuple):
    """An image or a tile of it, with what a GeoTIFF says about it.

    Attributes:
        data: The encoded image.
        fields: Raw values of its fields; {} if it is not a TIFF.
        footprint: See `Example`.
    """

    data: bytes
    fields: dict[str, object]
    footprint: Mapping[str, Any] | None


def read_image(
    archives: Archives, container: str, member: str, window: Window | None
) -> TaggedImage:
    """Return an image or a tile of it, with its fields if it is a TIFF.

    Args:
        archives: Where the file is.
        container: Its folder or zip.
        member: Its path in there.
        window: The tile; None for the whole image.

    Raises:
        UnreadableExample: The file cannot be read.
    """
    data: bytes | str = (
        archives.read(container, member, MAX_IMAGE_BYTES)
        if window is None
        else tiff_data(archives, container, member)
    )
    if isinstance(data, bytes) and not is_raster(data):
        return TaggedImage(data, {}, None)
    try:
        with open_tiff(data) as image:
            width, height = image.page.width, image.page.height
            part = window or Window(0, 0, width, height)
            if part.x + part.width > width or part.y + part.height > height:
                raise UnreadableExample("changed while it was read")
            fields = read_fields(image.dataset, part)
            footprint = read_footprint(image.dataset, part)
            if window is not None:
                data = image.read_tile(window)
    except ImageError as error:
        raise UnreadableExample(str(error)) from error
    except OSError as error:
        raise UnreadableExample(f"cannot be read: {error.strerror}") from error
    return TaggedImage(bytes(data), fields, footprint)  # type: ignore[arg-type]


def tiff_data(archives: Archives, container: str, member: str) -> bytes | str:
    """Return what `open_tiff` reads windows of: a path, or the contents of a file in a zip.

    Raises:
        UnreadableExample: The file in a zip cannot be read, or is too long.
    """
    if os.path.isdir(container):
        return os.path.join(container, member)
    try:
        return archives.read(container, member, MAX_ZIPPED_BYTES)
    except UnreadableExample as error:
        raise UnreadableExample(f"{error} (tiles of large files: unpack the zip)") from error
