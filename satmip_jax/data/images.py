"""Decoding of image files, and crops resized to squares; no other module decodes pixels.

Every file is untrusted: its header is read and its size bounded before any pixel is decoded. Boxes
are (x, y, width, height) in pixels, y downwards.
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
MIN_BOX = 2.0  # pixels; a smaller box shows nothing

_MAX_SEGMENTS = 4096  # of a JPEG header; a real one has a few dozen
_NOT_A_FRAME = {0xC4, 0xC8, 0xCC}  # DHT, JPG, DAC: their codes are among those of frames


class ImageError(SatmipError, ValueError):
    """An image file, or a box in it, that cannot be used; the message says why."""


@dataclass(frozen=True)
class Header:
    """Header of an image file.

    Attributes:
        format: "JPEG", "PNG", "TIFF" or "WEBP".
        width: in pixels.
        height: in pixels.
        components: number of channels.
    """

    format: str
    width: int
    height: int
    components: int


@dataclass(frozen=True)
class Square:
    """An image cropped and resized for storage.

    Attributes:
        data: JPEG bytes of a `size` x `size` RGB image.
        region: the part of the source image that it shows, in source pixels.
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
    """Decode in one thread: for worker processes, which already use every core."""
    _cv2().setNumThreads(1)


def read_header(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Header:
    """Read format and size without decoding.

    Args:
        data: an encoded file: JPEG, PNG, TIFF or WebP.
        max_pixels: limit of width x height, against decompression bombs.

    Raises:
        ImageError: the format is unknown, the header is damaged, or the image is too large.

    Example:
        >>> from satmip_jax.data.images import encode_png, read_header
        >>> read_header(encode_png(np.zeros((2, 3, 3), np.uint8)))
        Header(format='PNG', width=3, height=2, components=3)
    """
    header = _jpeg_header(data) if data[:2] == b"\xff\xd8" else _other_header(data)
    width, height = header.width, header.height
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE):
        raise ImageError(f"impossible image size {width}x{height}")
    if width * height > max_pixels:
        raise ImageError(f"{width}x{height} pixels, more than the limit of {max_pixels:,}")
    return header


def _jpeg_header(data: bytes) -> Header:
    """Walk the segments up to the frame header, as libjpeg does; about 3 us."""
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
    # The plug-in classes, not PIL.Image.open, which tries every format it knows and warns about
    # sizes that are ordinary for satellite images.
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
            except Exception as error:  # the parsers raise exceptions of many kinds
                raise ImageError(f"damaged {name} header: {type(error).__name__}") from error
    if not data:
        raise ImageError("empty file")
    raise ImageError("not a JPEG, PNG, TIFF or WebP file")


def decode(data: bytes, *, reduce: int = 1, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decode an image file.

    Pixels keep their stored order: an EXIF orientation is ignored, because boxes refer to stored
    pixels. Grey images are repeated over the channels, an alpha channel is dropped, and of 16 bits
    the upper 8 are kept.

    Args:
        data: the encoded file.
        reduce: 1, 2, 4 or 8: decode a JPEG to ceil(size / reduce), which is faster.
        max_pixels: see `read_header`.

    Returns:
        uint8 (height, width, 3), RGB.

    Raises:
        ImageError: the file is damaged, truncated, too large, or of an unknown format.
    """
    return _decode(data, read_header(data, max_pixels=max_pixels), reduce)[:, :, ::-1]


def _decode(data: bytes, header: Header, reduce: int = 1) -> np.ndarray:
    """Decode to BGR, the order of opencv."""
    cv2 = _cv2()
    # libjpeg fills the missing part of a truncated file with grey and only warns. Most files end
    # with the end marker; searching for it takes a twentieth of the time of decoding.
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
        raise ImageError(f"decoded to {image.shape}, but its header states {expected}")
    return image


def decode_square(
    data: bytes, size: int, *, name: str = "image", out: np.ndarray | None = None
) -> np.ndarray:
    """Decode an image that must be `size` x `size`, as shards store it.

    Args:
        data: the encoded file.
        size: side in pixels.
        name: name of the image in errors.
        out: contiguous uint8 (size, size, 3) array to fill, such as a row of a batch.

    Returns:
        uint8 (size, size, 3), RGB; `out` if it was given.

    Raises:
        ImageError: the image is damaged or of another size.
        ValueError: `out` has another shape or dtype, or is not contiguous.
    """
    try:
        header = read_header(data)
        if (header.width, header.height) != (size, size):
            raise ImageError(f"{header.width}x{header.height} pixels instead of {size}x{size}")
        pixels = _decode(data, header)
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from error
    out = np.empty((size, size, 3), np.uint8) if out is None else out
    # opencv would silently allocate another array for one that it cannot fill
    if out.shape != pixels.shape or out.dtype != np.uint8 or not out.flags.c_contiguous:
        raise ValueError(
            f"out must be contiguous uint8 {pixels.shape}, not {out.dtype} {out.shape}"
        )
    _cv2().cvtColor(pixels, _cv2().COLOR_BGR2RGB, dst=out)
    return out


def clip_box(box: Box, width: int, height: int) -> Box:
    """Return the part of a box inside an image of `width` x `height` pixels.

    Raises:
        ImageError: the box is not finite, is outside, or has less than `MIN_BOX` pixels a side.
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
    """Return the region to crop: a square around the box with context, in integer pixels.

    The side of the square is `context_ratio` times the longer side of the box. A square that
    reaches over the border is shifted inside. If the image is too small for it, it has less
    context; it is not square only if a square would cut the box. Without a box the region is the
    image.

    Args:
        box: labelled region, or None.
        width: width of the image.
        height: height of the image.
        context_ratio: side of the square / longer side of the box.

    Raises:
        ImageError: see `clip_box`.

    Example:
        >>> from satmip_jax.data.images import crop_region
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
    """Crop the region around a box from an image file and resize it to a square.

    A JPEG that has the right size already and needs no crop keeps its bytes.

    Args:
        data: the encoded source image.
        size: side of the result in pixels.
        box: labelled region in pixels of the source; None for all of it.
        context_ratio: see `crop_region`.
        quality: JPEG quality of the result, 1 to 100.
        max_pixels: see `read_header`.

    Raises:
        ImageError: the image or the box cannot be used.
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
        # Crop on the reduced grid, and return the exact region. The last column and row of that
        # grid may cover fewer source pixels than the others: leave them out.
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
    """Return PNG bytes (lossless) of an array, for sources whose images are arrays.

    Args:
        pixels: uint8 (height, width, 3), RGB.

    Raises:
        ImageError: another shape or dtype.
    """
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        raise ImageError(f"cannot be encoded as PNG: {pixels.dtype} {pixels.shape}")
    done, encoded = _cv2().imencode(".png", np.ascontiguousarray(pixels[:, :, ::-1]))
    if not done:
        raise ImageError("cannot be encoded as PNG")
    return encoded.tobytes()


def channel_sums(pixels: np.ndarray) -> tuple[list[int], list[int]]:
    """Return the exact sums, by channel, of the values and of their squares.

    Args:
        pixels: uint8 (height, width, 3), RGB, of at most 2^24 pixels.
    """
    # opencv computes means and deviations from integers, in float64. For up to 2^24 pixels the sums
    # recovered from them are off by less than 2^-10, so rounding restores the integers. With four
    # channels opencv takes a third of the time. Arrays decoded here are reversed views of BGR, so
    # reversing them again is no copy.
    four = _cv2().cvtColor(pixels[:, :, ::-1], _cv2().COLOR_BGR2BGRA)
    mean, deviation = (x[2::-1, 0] for x in _cv2().meanStdDev(four))
    count = pixels.shape[0] * pixels.shape[1]
    totals, squares = count * mean, count * (deviation**2 + mean**2)
    return [round(x) for x in totals.tolist()], [round(x) for x in squares.tolist()]


def _reduction(header: Header, region: Box, size: int) -> int:
    """Return how far the decoder may shrink, so that INTER_AREA shrinks by two or more after it."""
    if header.format != "JPEG":
        return 1
    shrink = min(region[2], region[3]) / size
    return next((r for r in (8, 4, 2) if shrink >= 2 * r), 1)


def _resize(pixels: np.ndarray, size: int) -> np.ndarray:
    """Average areas along axes that shrink (linear is not antialiased); cubic along the others."""
    cv2 = _cv2()
    height, width = pixels.shape[:2]
    smaller = min(width, size), min(height, size)
    if smaller != (width, height):
        pixels = cv2.resize(pixels, smaller, interpolation=cv2.INTER_AREA)
    if smaller != (size, size):
        pixels = cv2.resize(pixels, (size, size), interpolation=cv2.INTER_CUBIC)
    return np.ascontiguousarray(pixels)
