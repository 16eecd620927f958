"""TIFF files: the header of the page that is the image, and its values.

This module walks the headers itself, so that sizes are bounded before GDAL (rasterio) sees the
file. Only GDAL's GeoTIFF driver may open it, without sidecar files, so that its contents cannot
make GDAL read other files.

An orientation is ignored, as it is for JPEG: boxes and coordinates refer to stored pixels.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from mmap import mmap

import numpy as np

from satmip_jax.data.gdal import TIFF_DRIVER, open_dataset
from satmip_jax.data.image_errors import ImageError
from satmip_jax.data.rendering import Rendering, Values

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the last two are BigTIFF
MAX_PAGES = 256
MAX_BANDS = 4096
_MAX_TAGS = 4096  # of a page
_MIN_BLOCK_LIMIT = 16 << 20  # bytes
_BLOCK_SHARE = 4  # a strip or tile may take a fourth of the limit of an image
_TOTAL_FACTOR = 4  # all bands together may take four times the limit of the three shown

_REDUCED, _MASK = 1, 4  # bits of NewSubfileType
_TAGS = {
    254: "subfile",
    256: "width",
    257: "height",
    258: "bits",
    259: "compression",
    262: "photometric",
    277: "bands",
    278: "strip_height",
    284: "planar",
    322: "tile_width",
    323: "tile_height",
    330: "subpages",
    339: "format",
}
_LISTS = ("bits", "format")  # one value per band
_INTEGERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
_PALETTE, _WHITE_IS_ZERO = 3, 0
_PHOTOMETRIC = {
    4: "a transparency mask",
    5: "CMYK",
    8: "CIE L*a*b*",
    9: "ICC L*a*b*",
    10: "ITU L*a*b*",
    32803: "raw data of a camera",
    32844: "LogL",
    32845: "LogLuv",
    34892: "raw data of a camera",
}
_COMPRESSION = {
    2: "CCITT",
    3: "CCITT fax 3",
    4: "CCITT fax 4",
    6: "old JPEG",
    7: "JPEG",
    34712: "JPEG 2000",
    34887: "LERC",
    34925: "LZMA",
    50000: "ZSTD",
    50001: "WebP",
    50002: "JPEG XL",
    52546: "JPEG XL",
}


@dataclass(frozen=True)
class Page:
    """Header of one page of a TIFF.

    Attributes:
        offset: Position in the file.
        width: In pixels.
        height: In pixels.
        bands: Number of bands.
        bits: Bits of a value.
        dtype: Type of the values, such as "uint16"; "uint1" for one bit.
        photometric: Number of the photometric interpretation.
        compression: Number of the compression.
        planar: Whether each band is stored by itself.
        block: (width, height) of a strip or tile.
        reduced: Whether it is marked as a reduced image of another page, or as a mask.
        subpages: Whether it refers to pages outside the chain.
        driver: Of GDAL, which alone may open the file.
    """

    offset: int
    width: int
    height: int
    bands: int
    bits: int
    dtype: str
    photometric: int
    compression: int
    planar: bool
    block: tuple[int, int]
    reduced: bool
    subpages: bool
    driver: str = TIFF_DRIVER

    @property
    def format(self) -> str:
        """The format in messages."""
        return "TIFF" if self.driver == TIFF_DRIVER else "JPEG 2000"


# --- headers --------------------------------------------------------------------------------------


def read_page(data: bytes | mmap) -> Page:
    """Return the header of the page that is the image; thumbnails, overviews and masks are not.

    Raises:
        ImageError: The headers are damaged, or it is not clear which page is the image.
    """
    try:
        pages = list(_pages(data))
    except (struct.error, OverflowError) as error:
        raise ImageError("damaged TIFF header") from error
    if not pages:
        raise ImageError("damaged TIFF header")
    full = [page for page in pages if not page.reduced]
    if not full and len(pages) == 1 and not pages[0].subpages:
        return pages[0]
    if not full:
        raise ImageError("TIFF with thumbnails only, as of a camera: convert it to one image")
    # a thumbnail without a mark: less than half as wide and high as the image
    full.sort(key=lambda page: page.width * page.height, reverse=True)
    image, *others = full
    if any(2 * page.width > image.width or 2 * page.height > image.height for page in others):
        raise ImageError(f"TIFF of {len(full)} pages: save one image a file, its bands in one page")
    return image


def _pages(data: bytes | mmap) -> Iterator[Page]:
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    if big and struct.unpack_from(order + "HH", data, 4) != (8, 0):
        raise ImageError("damaged TIFF header")
    start, counter, entry, link = (8, "Q", "HHQ", "Q") if big else (4, "H", "HHI", "I")
    inline = struct.calcsize(order + link)
    size = struct.calcsize(order + entry) + inline
    (offset,) = struct.unpack_from(order + link, data, start)
    seen: set[int] = set()
    while offset:
        if offset in seen:
            raise ImageError("damaged TIFF header")
        if len(seen) == MAX_PAGES:
            raise ImageError(f"TIFF of more than {MAX_PAGES} pages")
        seen.add(offset)
        (count,) = struct.unpack_from(order + counter, data, offset)
        if not 0 < count <= _MAX_TAGS:
            raise ImageError("damaged TIFF header")
        first = offset + struct.calcsize(order + counter)
        tags: dict[str, tuple[int, ...]] = {}
        for at in range(first, first + count * size, size):
            tag, kind, length = struct.unpack_from(order + entry, data, at)
            if tag not in _TAGS or kind not in _INTEGERS:
                continue
            name, code = _TAGS[tag], order + str(min(length, MAX_BANDS)) + _INTEGERS[kind]
            position = at + size - inline
            if length * struct.calcsize(order + _INTEGERS[kind]) > inline:
                (position,) = struct.unpack_from(order + link, data, position)
            tags[name] = struct.unpack_from(code, data, position)
        yield _page(offset, {name: values for name, values in tags.items() if values})
        (offset,) = struct.unpack_from(order + link, data, first + count * size)


def _page(offset: int, tags: dict[str, tuple[int, ...]]) -> Page:
    first = {name: values[0] for name, values in tags.items()}
    if not first.get("width") or not first.get("height"):
        raise ImageError("damaged TIFF header")
    bands = first.get("bands", 1)
    if not 0 < bands <= MAX_BANDS:
        raise ImageError(f"TIFF of {bands:,} bands, more than the limit of {MAX_BANDS:,}")
    for name in _LISTS:
        if len(set(tags.get(name, ())[:bands])) > 1:
            raise ImageError("TIFF whose bands have different types")
    width, height = first["width"], first["height"]
    bits, kind = first.get("bits", 1), first.get("format", 1)
    if "tile_width" in first:
        block = first["tile_width"], first.get("tile_height", 0)
    else:
        block = width, min(first.get("strip_height", height), height)
    if not (0 < bits <= 128 and block[0] and block[1]):
        raise ImageError("damaged TIFF header")
    names = {1: "uint", 2: "int", 3: "float", 5: "complex int", 6: "complex"}
    return Page(
        offset=offset,
        width=width,
        height=height,
        bands=bands,
        bits=bits,
        dtype=f"{names.get(kind, 'uint')}{bits}",
        photometric=first.get("photometric", 1),
        compression=first.get("compression", 1),
        planar=first.get("planar", 1) == 2,
        block=block,
        reduced=bool(first.get("subfile", 0) & (_REDUCED | _MASK)),
        subpages="subpages" in tags,
    )


def check_size(page: Page, file_size: int, limit: int) -> None:
    """Bound what reading a page allocates, before anything is decoded.

    Args:
        page: See `read_page`.
        file_size: Size of the file in bytes.
        limit: Maximum number of bytes of three bands.

    Raises:
        ImageError: The page is too large, or the file cannot hold the positions of its blocks.
    """
    size = -(-page.bits // 8)
    pixels = page.width * page.height
    if min(page.bands, 3) * size * pixels > limit or page.bands * size * pixels > (
        _TOTAL_FACTOR * limit
    ):
        raise ImageError(
            f"{page.width}x{page.height} pixels in {page.bands} bands of {page.dtype}: more than "
            f"the limit of {limit:,} bytes in three bands"
        )
    check_blocks(page, file_size, limit)


def check_blocks(page: Page, file_size: int, limit: int) -> None:
    """Bound what reading a window of a page allocates, before anything is decoded.

    Args:
        page: See `read_page`.
        file_size: Size of the file in bytes.
        limit: Maximum number of bytes of three bands of an image; a block may take a fourth.

    Raises:
        ImageError: A block is too large, or the file cannot hold the positions of its blocks.
    """
    size = -(-page.bits // 8)
    across, down = page.block
    together = 1 if page.planar else page.bands
    if across * down * together * size > max(limit // _BLOCK_SHARE, _MIN_BLOCK_LIMIT):
        raise ImageError(
            f"{page.format} with blocks of {across}x{down} pixels in {together} bands of "
            f"{page.dtype}: save it with smaller strips or tiles"
        )
    blocks = -(-page.width // across) * -(-page.height // down)
    if blocks * (page.bands if page.planar else 1) * 2 > file_size:
        raise ImageError("damaged TIFF header")


# --- values ---------------------------------------------------------------------------------------


def read_values(data: bytes, page: Page, rendering: Rendering) -> Values:
    """Decode the bands of a page that are shown.

    Args:
        data: The file.
        page: Its page, of a size that `check_size` accepts.
        rendering: The bands.

    Returns:
        The values, not yet scaled; uint8 if the file has 8 bits or a palette.

    Raises:
        ImageError: The file is damaged, or an option is needed to read it.
    """
    check_values(page)
    palette = page.photometric == _PALETTE and page.bits <= 8 and rendering.bands is None
    try:
        with open_dataset(data, page.offset, page.driver) as dataset:
            colours = [colour.name for colour in dataset.colorinterp]
            bands = rendering.choose(dataset.count, page.dtype, colours, palette=palette)
            array = dataset.read([bands[0]] if len(bands) == 1 else bands[::-1])
            missing = dataset.nodata
            table = dataset.colormap(bands[0]) if palette else None
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # rasterio raises many types
        raise ImageError(failure_reason(error, page)) from error
    if array.shape[1:] != (page.height, page.width):
        raise ImageError(f"damaged {page.format}")
    if table is not None:
        colours_bgr = np.zeros((256, 3), np.uint8)
        for value, (red, green, blue, *_) in table.items():
            if 0 <= value < 256:
                colours_bgr[value] = blue, green, red
        return Values(colours_bgr[array[0]], rendered=True)
    inverted = page.photometric == _WHITE_IS_ZERO and len(bands) == 1
    if page.dtype == "uint8":
        return Values(_interleave(255 - array if inverted else array), rendered=True)
    if missing is not None:
        with np.errstate(all="ignore"):  # as the values have it: rounded to their type
            missing = float(np.float64(missing).astype(array.dtype))
    return Values(_interleave(array), missing, inverted)


def check_values(page: Page) -> None:
    """Raise `ImageError` if the values of a page are neither grey, RGB nor other real bands."""
    if page.photometric in _PHOTOMETRIC:
        raise ImageError(
            f"{page.format} of {_PHOTOMETRIC[page.photometric]}, not of grey or RGB: convert it to "
            "RGB"
        )
    if page.dtype.startswith("complex"):
        raise ImageError("TIFF of complex numbers: convert it to real ones")


def _interleave(array: np.ndarray) -> np.ndarray:
    """Return bands as channels; one band is repeated."""
    interleaved = np.empty((*array.shape[1:], 3), array.dtype)
    interleaved[...] = array.transpose(1, 2, 0)
    return interleaved


def failure_reason(error: Exception, page: Page) -> str:
    """Return why GDAL could not read a page, in words for users."""
    texts: list[str] = []
    cause: BaseException | None = error
    while cause is not None and len(texts) < 8:
        texts.append(str(cause).lower())
        cause = cause.__cause__ or cause.__context__
    text = " ".join(texts)
    if "codec" in text or "not configured" in text or "compression scheme" in text:
        name = _COMPRESSION.get(page.compression, f"number {page.compression}")
        return f"TIFF compression {name} is not supported: save it uncompressed or with deflate"
    return f"damaged {page.format}"
