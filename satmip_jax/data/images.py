"""Image files in, fixed squares out: the only module that touches the pixels of files.

Every file is treated as a stranger's: its header is read, and its size bounded, before a single
pixel is decoded. Boxes are (x, y, width, height) in pixels, y downwards.
"""

from __future__ import annotations

import io
import math
import struct
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np

from satmip_jax.errors import SatmipError

Box = tuple[float, float, float, float]

# fMoW holds real images of 16,288 x 16,291 pixels; three bytes a pixel make this 1.2 GB.
MAX_PIXELS = 400_000_000
MAX_SIDE = 65_535  # JPEG's own limit
MIN_BOX = 2.0  # pixels; a smaller box holds nothing to look at

_MAX_SEGMENTS = 4096  # of a JPEG header; a real one has a few dozen
_NOT_A_FRAME = {0xC4, 0xC8, 0xCC}  # DHT, JPG, DAC lie among the start-of-frame markers


class ImageError(SatmipError, ValueError):
    """An image file, or a box in it, cannot be used; the message says why."""


@dataclass(frozen=True)
class Header:
    """What the header of an image file says: its format, and its size in pixels."""

    format: str
    width: int
    height: int
    components: int


@dataclass(frozen=True)
class Square:
    """An image cut and resized for storage.

    Attributes:
      data: JPEG bytes of a `size` x `size` RGB image.
      region: The part of the source image that it shows, in source pixels.
      source_size: (width, height) of the source image.
      pixels: uint8 (size, size, 3), RGB.
    """

    data: bytes
    region: Box
    source_size: tuple[int, int]
    pixels: np.ndarray


@cache
def _cv2() -> ModuleType:
    import cv2

    cv2.utils.logging.setLogLevel(0)  # failures are reported by this module, with the file's name
    return cv2


def use_one_thread() -> None:
    """One decoding thread: for worker processes, which already use every core."""
    _cv2().setNumThreads(1)


def read_header(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Header:
    """Reads format and size without decoding.

    Args:
      data: An encoded file: JPEG, PNG, TIFF or WebP.
      max_pixels: Larger images are refused; guards against decompression bombs.

    Raises:
      ImageError: Unknown format, damaged header, or an image too large.

    Example:
      >>> read_header(Path("airport_0_0_msrgb.jpg").read_bytes())
      Header(format='JPEG', width=2050, height=1578, components=3)
    """
    header = _jpeg_header(data) if data[:2] == b"\xff\xd8" else _other_header(data)
    width, height = header.width, header.height
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE):
        raise ImageError(f"impossible image size {width}x{height}")
    if width * height > max_pixels:
        raise ImageError(f"{width}x{height} pixels, more than the limit of {max_pixels:,}")
    return header


def _jpeg_header(data: bytes) -> Header:
    """Walks the segments up to the frame header, as libjpeg does; about 3 us."""
    position = 2
    for _ in range(_MAX_SEGMENTS):
        position = data.find(b"\xff", position)
        if position < 0:
            break
        while data[position : position + 1] == b"\xff":
            position += 1
        if len(data) < position + 3:
            break
        marker = data[position]
        if marker == 0 or marker == 1 or 0xD0 <= marker <= 0xD8:  # these carry no length
            position += 1
            continue
        if marker in (0xD9, 0xDA):
            break
        (length,) = struct.unpack_from(">H", data, position + 1)
        if 0xC0 <= marker <= 0xCF and marker not in _NOT_A_FRAME:
            if length < 8 or len(data) < position + 9:
                break
            _, height, width, components = struct.unpack_from(">BHHB", data, position + 3)
            return Header("JPEG", width, height, components)
        position += 1 + max(length, 2)
    raise ImageError("damaged JPEG header")


def _other_header(data: bytes) -> Header:
    # The plug-in classes, not PIL.Image.open: that one tries every format it knows, and warns
    # about sizes that are ordinary for satellite images.
    from PIL import PngImagePlugin, TiffImagePlugin, WebPImagePlugin

    plugins: tuple[tuple[str, tuple[bytes, ...], Any], ...] = (
        ("PNG", (b"\x89PNG\r\n\x1a\n",), PngImagePlugin.PngImageFile),
        ("TIFF", (b"II*\0", b"MM\0*"), TiffImagePlugin.TiffImageFile),
        ("WEBP", (b"RIFF",), WebPImagePlugin.WebPImageFile),
    )
    for name, magic, plugin in plugins:
        if data.startswith(magic):
            try:
                image = plugin(io.BytesIO(data))
                width, height = image.size
                return Header(name, width, height, len(image.getbands()))
            except Exception as error:  # the parsers raise whatever they run into
                raise ImageError(f"damaged {name} header: {type(error).__name__}") from error
    if not data:
        raise ImageError("empty file")
    raise ImageError("not a JPEG, PNG, TIFF or WebP file")


def decode(data: bytes, *, reduce: int = 1, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decodes an image file to uint8 (height, width, 3), RGB.

    Stored pixels are returned as they lie: an EXIF orientation is ignored, because boxes are
    counted in stored pixels. Grey images are repeated, an alpha channel is dropped, 16 bits are
    cut to their upper 8.

    Args:
      data: The encoded file.
      reduce: 1, 2, 4 or 8: decodes a JPEG to ceil(size / reduce), which is quicker.
      max_pixels: See `read_header`.

    Raises:
      ImageError: The file is damaged, truncated, too large, or of an unknown format.
    """
    return _decode(data, read_header(data, max_pixels=max_pixels), reduce)[:, :, ::-1]


def _decode(data: bytes, header: Header, reduce: int = 1) -> np.ndarray:
    """Decodes to BGR, the order that opencv keeps."""
    cv2 = _cv2()
    # libjpeg fills what a truncated file lacks with grey and calls it a warning. Most files end
    # with the marker; to search for it takes a twentieth of the time of decoding.
    end = b"\xff\xd9"
    if (
        header.format == "JPEG"
        and not data.endswith(end)
        and data.find(end, data.rfind(b"\xff\xda")) < 0
    ):
        raise ImageError("truncated JPEG")
    if header.format == "PNG" and b"IEND" not in data[-64:]:
        raise ImageError("truncated PNG")
    if reduce > 1 and header.format != "JPEG":
        raise ImageError(f"only JPEG decodes at a reduced size, not {header.format}")
    flags = {
        1: cv2.IMREAD_COLOR,
        2: cv2.IMREAD_REDUCED_COLOR_2,
        4: cv2.IMREAD_REDUCED_COLOR_4,
        8: cv2.IMREAD_REDUCED_COLOR_8,
    }[reduce]
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise ImageError(f"damaged {header.format}") from error
    if image is None:
        raise ImageError(f"damaged {header.format}")
    expected = (-(-header.height // reduce), -(-header.width // reduce), 3)
    if image.shape != expected:
        raise ImageError(f"decoded to {image.shape}, its header promised {expected}")
    return image


def decode_square(
    data: bytes, size: int, *, name: str = "image", out: np.ndarray | None = None
) -> np.ndarray:
    """Decodes an image that must be `size` x `size`; what shards hold.

    Args:
      data: The encoded file.
      size: Side in pixels.
      name: Names the image in errors.
      out: Optional contiguous uint8 (size, size, 3) array to fill, such as a row of a batch.

    Returns:
      uint8 (size, size, 3), RGB.

    Raises:
      ImageError: Damaged, or of another size.
    """
    try:
        header = read_header(data)
        if (header.width, header.height) != (size, size):
            raise ImageError(f"{header.width}x{header.height} pixels instead of {size}x{size}")
        pixels = _decode(data, header)
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from error
    out = np.empty((size, size, 3), np.uint8) if out is None else out
    # opencv would quietly allocate another array for one it cannot fill
    if out.shape != pixels.shape or out.dtype != np.uint8 or not out.flags.c_contiguous:
        raise ValueError(
            f"out must be contiguous uint8 {pixels.shape}, not {out.dtype} {out.shape}"
        )
    _cv2().cvtColor(pixels, _cv2().COLOR_BGR2RGB, dst=out)
    return out


def clip_box(box: Box, width: int, height: int) -> Box:
    """The part of a box that lies inside the image.

    Raises:
      ImageError: The box is not finite, lies outside, or keeps under `MIN_BOX` pixels a side.
    """
    if not all(map(math.isfinite, box)):
        raise ImageError("box is not finite")
    x, y, w, h = box
    if w < MIN_BOX or h < MIN_BOX:
        raise ImageError(f"box under {MIN_BOX:.0f} pixels")
    left, top = max(x, 0.0), max(y, 0.0)
    right, bottom = min(x + w, float(width)), min(y + h, float(height))
    if right - left < MIN_BOX or bottom - top < MIN_BOX:
        raise ImageError("box outside the image")
    return left, top, right - left, bottom - top


def crop_region(box: Box | None, width: int, height: int, context_ratio: float) -> Box:
    """The region to cut: a square around the box with context, in whole pixels.

    The square's side is `context_ratio` times the longer side of the box. It is shifted into the
    image where it sticks out; where the image is too small for it, context is given up first,
    and the square shape only if the box itself would be cut. Without a box, the whole image.

    Raises:
      ImageError: See `clip_box`.

    Example:
      >>> crop_region((466, 299, 72, 60), 977, 663, 1.5)
      (448.0, 275.0, 108.0, 108.0)
    """
    if box is None:
        return 0.0, 0.0, float(width), float(height)
    x, y, w, h = clip_box(box, width, height)
    longer = max(w, h)
    side = math.ceil(max(longer, min(longer * context_ratio, min(width, height))))
    cut_w, cut_h = min(side, width), min(side, height)
    left = min(max(round(x + w / 2 - cut_w / 2), 0), width - cut_w)
    top = min(max(round(y + h / 2 - cut_h / 2), 0), height - cut_h)
    return float(left), float(top), float(cut_w), float(cut_h)


def make_square(
    data: bytes,
    size: int,
    *,
    box: Box | None = None,
    context_ratio: float = 1.0,
    quality: int = 95,
    max_pixels: int = MAX_PIXELS,
) -> Square:
    """Cuts the region around a box out of an image file and resizes it to a square.

    A JPEG that already has the right size, and of which all is wanted, keeps its bytes.

    Args:
      data: The encoded source image.
      size: Side of the result in pixels.
      box: Labelled region in pixels of the source; None for all of it.
      context_ratio: See `crop_region`.
      quality: JPEG quality of the result, 1 to 100.
      max_pixels: See `read_header`.

    Raises:
      ImageError: The image or the box cannot be used.
    """
    cv2 = _cv2()
    header = read_header(data, max_pixels=max_pixels)
    full = header.width, header.height
    region = crop_region(box, *full, context_ratio)
    whole = region == (0.0, 0.0, *map(float, full))
    if whole and full == (size, size) and header.format == "JPEG" and header.components == 3:
        return Square(data, region, full, _decode(data, header)[:, :, ::-1])

    reduce = _reduction(header, region, size)
    pixels = _decode(data, header, reduce)
    x, y, w, h = (int(v) for v in region)
    if reduce > 1:
        # Cut whole pixels of the reduced grid, and say exactly what was cut. The last column and
        # row of that grid may stand for fewer source pixels than the others: leave them out.
        columns, rows = full[0] // reduce, full[1] // reduce
        w, h = min(round(w / reduce), columns), min(round(h / reduce), rows)
        x, y = min(x // reduce, columns - w), min(y // reduce, rows - h)
        region = tuple(float(v * reduce) for v in (x, y, w, h))  # type: ignore[assignment]
    pixels = _resize(pixels[y : y + h, x : x + w], size)
    done, encoded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise ImageError("cannot be encoded as JPEG")
    return Square(encoded.tobytes(), region, full, pixels[:, :, ::-1])


def encode_png(pixels: np.ndarray) -> bytes:
    """Lossless PNG bytes of uint8 (height, width, 3), RGB: for sources whose data are arrays."""
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        raise ImageError(f"cannot be encoded as PNG: {pixels.dtype} {pixels.shape}")
    done, encoded = _cv2().imencode(".png", np.ascontiguousarray(pixels[:, :, ::-1]))
    if not done:
        raise ImageError("cannot be encoded as PNG")
    return encoded.tobytes()


def channel_sums(pixels: np.ndarray) -> tuple[list[int], list[int]]:
    """Exact sums of the values, and of their squares: uint8 (height, width, 3), by channel."""
    # Its means and deviations come from integers, in float64: of up to 2^24 pixels these sums are
    # off by less than 2^-10, so that rounding makes them the integers again. Of four channels they
    # take a third of the time; what this module decodes is BGR seen backwards, back it is no copy.
    four = _cv2().cvtColor(pixels[:, :, ::-1], _cv2().COLOR_BGR2BGRA)
    mean, deviation = (x[2::-1, 0] for x in _cv2().meanStdDev(four))
    count = pixels.shape[0] * pixels.shape[1]
    totals, squares = count * mean, count * (deviation**2 + mean**2)
    return [round(x) for x in totals.tolist()], [round(x) for x in squares.tolist()]


def _reduction(header: Header, region: Box, size: int) -> int:
    """How far the decoder itself may shrink: INTER_AREA keeps at least a factor of two to do."""
    if header.format != "JPEG":
        return 1
    shrink = min(region[2], region[3]) / size
    return next((r for r in (8, 4, 2) if shrink >= 2 * r), 1)


def _resize(pixels: np.ndarray, size: int) -> np.ndarray:
    """Area average along axes that shrink (linear is not antialiased), cubic along the others."""
    cv2 = _cv2()
    height, width = pixels.shape[:2]
    smaller = min(width, size), min(height, size)
    if smaller != (width, height):
        pixels = cv2.resize(pixels, smaller, interpolation=cv2.INTER_AREA)
    if smaller != (size, size):
        pixels = cv2.resize(pixels, (size, size), interpolation=cv2.INTER_CUBIC)
    return np.ascontiguousarray(pixels)
