"""JPEG 2000 files: sizes and structure, read and bounded before OpenJPEG (GDAL) sees the file.

What OpenJPEG allocates follows from the main header: samples, tiles, code blocks, precincts and
layers. So headers of tiles that override the main header are refused, as is anything else that a
satellite image does not need: palettes, subsampled components, several images in a file.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from mmap import mmap
from typing import NamedTuple

from satmip_jax.data import tiff
from satmip_jax.data.image_errors import ImageError

MAGIC = (b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51")  # boxes, or a codestream by itself
_COMPRESSION = 34712  # number of JPEG 2000 in TIFFs
DRIVER = "JP2OpenJPEG"

_MAX_BOXES = 1024
_MAX_MARKERS = 4096
_MAX_PARTS = 1 << 20
_MAX_BITS = 16
_OVERHEAD = 1 << 30  # bytes of all tiles, and of blocks, precincts and layers of one
# bytes that each takes, more than in OpenJPEG 2.5
_BLOCK, _PRECINCT, _TILE, _TILE_BAND = 256, 512, 6_000, 1_200
_SIZ, _COD, _COC, _SOT, _SOD, _EOC = 0xFF51, 0xFF52, 0xFF53, 0xFF90, 0xFF93, 0xFFD9
_PPM = 0xFF60
_GREY, _RGB = 17, 16  # colour spaces by number


class _Coding(NamedTuple):
    """How tiles are coded: levels of wavelets, layers, sides of blocks and precincts (log2)."""

    levels: int
    layers: int
    block: tuple[int, int]
    precincts: tuple[tuple[int, int], ...]


def is_jp2(data: bytes | mmap) -> bool:
    r"""Whether a file begins like JPEG 2000.

    Example:
        >>> from satmip_jax.data.jp2 import is_jp2
        >>> is_jp2(b"II*\0")
        False
    """
    return data[:8] == MAGIC[0] or data[:4] == MAGIC[1]


def read_page(data: bytes | mmap) -> tiff.Page:
    """Return the header of an image, as a page like those of TIFFs.

    Raises:
        ImageError: The file is damaged or truncated, or uses what this module refuses.
    """
    try:
        start, end = _codestream(data)
        return _read_codestream(data, start, end)
    except (struct.error, IndexError) as error:
        raise ImageError("damaged or truncated JPEG 2000") from error


def _codestream(data: bytes | mmap) -> tuple[int, int]:
    """Return where the only codestream begins and ends."""
    if data[:4] == MAGIC[1]:
        return 0, len(data)
    found: list[tuple[int, int]] = []
    for kind, start, end in _boxes(data, 0, len(data)):
        if kind == b"jp2c":
            found.append((start, end))
        elif kind == b"jp2h":
            for inner, first, last in _boxes(data, start, end):
                _check_header_box(inner, data[first : min(last, first + 16)])
    if len(found) != 1:
        raise ImageError(f"JPEG 2000 with {len(found)} images, instead of one")
    return found[0]


def _boxes(data: bytes | mmap, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, start and end of the content of each box."""
    for _ in range(_MAX_BOXES):
        if start >= end:
            return
        length, kind = struct.unpack_from(">I4s", data, start)
        head = 8
        if length == 1:
            (length,) = struct.unpack_from(">Q", data, start + 8)
            head = 16
        length = length or end - start
        if length < head or start + length > end:
            raise ImageError("damaged or truncated JPEG 2000")
        yield kind, start + head, start + length
        start += length
    raise ImageError(f"JPEG 2000 of more than {_MAX_BOXES:,} boxes")


def _check_header_box(kind: bytes, content: bytes) -> None:
    if kind in (b"pclr", b"cmap"):
        raise ImageError("JPEG 2000 with a palette: convert it to RGB")
    if kind == b"colr" and content[:1] == b"\x01":
        (space,) = struct.unpack_from(">I", content, 3)
        if space not in (_GREY, _RGB):
            raise ImageError(f"JPEG 2000 of colour space {space}, not of grey or RGB")


def _read_codestream(data: bytes | mmap, start: int, end: int) -> tiff.Page:
    if data[start : start + 4] != MAGIC[1]:
        raise ImageError("damaged or truncated JPEG 2000")
    sizes: tuple[int, ...] | None = None
    components: list[tuple[int, int, int]] = []
    coding: _Coding | None = None
    position = start + 2
    for _ in range(_MAX_MARKERS):
        marker, length = struct.unpack_from(">HH", data, position)
        if marker == _SOT:
            break
        if marker == _SIZ:
            sizes = struct.unpack_from(">8IH", data, position + 6)
            if not 0 < sizes[8] <= tiff.MAX_BANDS or length != 38 + 3 * sizes[8]:
                raise ImageError("damaged or truncated JPEG 2000")
            components = list(
                struct.iter_unpack("BBB", data[position + 40 : position + 2 + length])
            )
        elif marker == _COD:
            coding = _read_coding(data, position + 4, position + 2 + length)
        elif marker in (_COC, _PPM):
            raise ImageError("JPEG 2000 whose bands are coded differently, or with packed headers")
        if length < 2:
            raise ImageError("damaged or truncated JPEG 2000")
        position += 2 + length
    if sizes is None or coding is None:
        raise ImageError("damaged or truncated JPEG 2000")
    page = _page(sizes, components)
    _bound(page, sizes, coding)
    _check_parts(data, position, end)
    return page


def _page(sizes: tuple[int, ...], components: list[tuple[int, int, int]]) -> tiff.Page:
    right, bottom, left, top, tile_width, tile_height, tile_left, tile_top, bands = sizes
    width, height = right - left, bottom - top
    if width <= 0 or height <= 0 or not tile_width or not tile_height:
        raise ImageError("damaged or truncated JPEG 2000")
    if tile_left > left or tile_top > top or len(set(components)) != 1:
        raise ImageError("JPEG 2000 whose bands have different types or sizes")
    depth, across, down = components[0]
    bits, signed = (depth & 0x7F) + 1, bool(depth & 0x80)
    if (across, down) != (1, 1):
        raise ImageError("JPEG 2000 whose bands have different types or sizes")
    if bits > _MAX_BITS:
        raise ImageError(f"JPEG 2000 of {bits} bits, more than {_MAX_BITS}")
    return tiff.Page(
        offset=0,
        width=width,
        height=height,
        bands=bands,
        bits=bits,
        dtype=f"{'int' if signed else 'uint'}{bits}",
        photometric=2 if bands > 2 else 1,
        compression=_COMPRESSION,
        planar=False,
        block=(min(tile_width, width), min(tile_height, height)),
        reduced=False,
        subpages=False,
        driver=DRIVER,
    )


def _read_coding(data: bytes | mmap, start: int, end: int) -> _Coding:
    style, _, layers, _, levels, across, down = struct.unpack_from(">BBHBBBB", data, start)
    across, down = (across & 15) + 2, (down & 15) + 2
    if levels > 32 or not layers or across > 10 or down > 10 or across + down > 12:
        raise ImageError("damaged or truncated JPEG 2000")
    precincts: tuple[tuple[int, int], ...] = ((15, 15),) * (levels + 1)
    if style & 1:
        listed = data[start + 10 : end]
        if len(listed) != levels + 1:
            raise ImageError("damaged or truncated JPEG 2000")
        precincts = tuple((size & 15, size >> 4) for size in listed)
    return _Coding(levels, layers, (across, down), precincts)


def _bound(page: tiff.Page, sizes: tuple[int, ...], coding: _Coding) -> None:
    """Refuse what would make OpenJPEG allocate far more than the samples of a tile."""
    width, height = page.block
    tiles = -(-sizes[0] // sizes[4]) * -(-sizes[1] // sizes[5])
    if tiles > 65_535:
        raise ImageError(f"JPEG 2000 of {tiles:,} tiles, more than 65,535")
    blocks = precincts = most = 0
    for resolution, (across, down) in enumerate(coding.precincts):
        shrink = coding.levels - resolution
        w, h = (max(1, -(-side >> shrink)) if shrink < 32 else 1 for side in (width, height))
        here = ((w >> across) + 2) * ((h >> down) + 2)
        # a precinct is halved in the bands of all resolutions but the first, and holds blocks whole
        inner = 0 if resolution == 0 else 1
        block = (
            min(coding.block[0], max(across - inner, 0)),
            min(coding.block[1], max(down - inner, 0)),
        )
        blocks += ((w >> block[0]) + 2) * ((h >> block[1]) + 2)
        precincts += here
        most = max(most, here)
    taken = tiles * (_TILE + _TILE_BAND * page.bands)
    taken += page.bands * (_BLOCK * blocks + _PRECINCT * precincts)
    taken += 2 * coding.layers * page.bands * (coding.levels + 1) * most
    if taken > _OVERHEAD:
        raise ImageError("JPEG 2000 of tiles, blocks or precincts that are too small for its size")


def _check_parts(data: bytes | mmap, position: int, end: int) -> None:
    """Walk the parts of all tiles: they are complete, and do not override the main header."""
    for _ in range(_MAX_PARTS):
        (marker,) = struct.unpack_from(">H", data, position)
        if marker == _EOC:
            return
        if marker != _SOT:
            break
        (length,) = struct.unpack_from(">I", data, position + 6)
        if not length:  # up to the end of the file
            length = end - 2 - position
        if length < 14 or position + length > end - 2:
            raise ImageError("damaged or truncated JPEG 2000")
        inner, last = position + 12, position + length
        for _ in range(_MAX_MARKERS):
            (marker,) = struct.unpack_from(">H", data, inner)
            if marker == _SOD:
                break
            if marker in (_COD, _COC):
                raise ImageError("JPEG 2000 whose tiles are coded differently")
            (size,) = struct.unpack_from(">H", data, inner + 2)
            inner += 2 + size
            if size < 2 or inner > last:
                raise ImageError("damaged or truncated JPEG 2000")
        else:
            break
        position += length
    raise ImageError("damaged or truncated JPEG 2000")
