"""TIFFs for tests, written by rasterio or by hand."""

import io
import struct
import warnings

import numpy as np
import rasterio
from PIL import Image
from rasterio.enums import ColorInterp
from rasterio.io import MemoryFile


def write_tiff(pixels: np.ndarray, *, colours=None, overviews=(), **options) -> bytes:
    """Return a TIFF of (height, width, bands) as GDAL writes it.

    `colours` marks the bands, and `overviews` are factors of reduced pages.
    """
    height, width, bands = pixels.shape
    profile = {"height": height, "width": width, "count": bands, "dtype": pixels.dtype, **options}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with MemoryFile() as file:
            with file.open(driver="GTiff", **profile) as dataset:
                dataset.write(pixels.transpose(2, 0, 1))
                if colours:
                    dataset.colorinterp = [ColorInterp[colour] for colour in colours]
                if overviews:
                    dataset.build_overviews(overviews)
            return file.read()


def write_pages(pages: list[np.ndarray], subfile: dict[int, int] | None = None) -> bytes:
    """Return a TIFF of several pages; `subfile` is NewSubfileType of a page."""
    data = io.BytesIO()
    first, *others = [Image.fromarray(page) for page in pages]
    for i, image in enumerate(others, 1):
        image.encoderinfo = {"tiffinfo": {254: (subfile or {}).get(i, 0)}}
    first.save(
        data,
        "TIFF",
        save_all=True,
        append_images=others,
        tiffinfo={254: (subfile or {}).get(0, 0)},
    )
    return data.getvalue()


def header_only(**changes: int) -> bytes:
    """Return a TIFF of one page with a header and few pixels; `changes` replaces tags."""
    tags = {
        "width": (256, 4, 4),
        "height": (257, 4, 4),
        "bits": (258, 3, 8),
        "compression": (259, 3, 1),
        "photometric": (262, 3, 1),
        "offset": (273, 4, 8),
        "bands": (277, 3, 1),
        "rows": (278, 4, 4),
        "size": (279, 4, 16),
        "planar": (284, 3, 1),
    }
    entries = b""
    for name, (tag, kind, value) in tags.items():
        value = changes.get(name, value)
        inline = struct.pack("<HH", value, 0) if kind == 3 else struct.pack("<I", value)
        entries += struct.pack("<HHI", tag, kind, 1) + inline
    start = 8 + 16
    return (
        struct.pack("<2sHI", b"II", 42, start)
        + bytes(16)
        + struct.pack("<H", len(tags))
        + entries
        + bytes(4)
    )
