"""Decoding of image files, and crops resized to squares; no other module decodes pixels.

Every file is untrusted: its header is read and its size bounded before any pixel is decoded. Boxes
are (x, y, width, height) in pixels, y downwards.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache
from types import ModuleType

import numpy as np

from satmip_jax.data import jpeg, tiff
from satmip_jax.data.headers import MAX_PIXELS, Header, read_header
from satmip_jax.data.image_errors import ImageError
from satmip_jax.data.rendering import DEFAULT, Rendering, Values, to_uint8

__all__ = [
    "DEFAULT",
    "MAX_PIXELS",
    "Box",
    "Header",
    "ImageError",
    "Rendering",
    "Square",
    "channel_sums",
    "clip_box",
    "crop_region",
    "decode",
    "decode_square",
    "encode_png",
    "make_square",
    "read_header",
    "read_resized",
    "resize_square",
    "use_one_thread",
]

Box = tuple[float, float, float, float]

MIN_BOX = 2.0  # pixels; a smaller box shows nothing


@dataclass(frozen=True)
class Square:
    """An image cropped and resized for storage.

    Attributes:
        data: JPEG bytes of a `size` x `size` RGB image.
        region: the part of the source image that it shows, in source pixels.
        source_size: (width, height) of the source image.
        pixels: uint8 (size, size, 3), RGB.
        scaled_from: smallest and largest value of the region if values were scaled to 8 bits.
    """

    data: bytes
    region: Box
    source_size: tuple[int, int]
    pixels: np.ndarray
    scaled_from: tuple[float, float] | None = None


@cache
def _cv2() -> ModuleType:
    import cv2

    cv2.utils.logging.setLogLevel(0)  # failures are reported by this module, with the file's name
    return cv2


def use_one_thread() -> None:
    """Decode in one thread: for worker processes, which already use every core."""
    _cv2().setNumThreads(1)


def decode(
    data: bytes,
    *,
    reduce: int = 1,
    max_pixels: int = MAX_PIXELS,
    rendering: Rendering = DEFAULT,
) -> np.ndarray:
    """Decode an image file.

    Pixels keep their stored order: the orientation in EXIF or TIFF tags is ignored, because boxes
    refer to stored pixels. Grey images are repeated over the channels, and an alpha channel is
    dropped.

    Args:
        data: The encoded file.
        reduce: 1, 2, 4 or 8: decode a JPEG to ceil(size / reduce), which is faster.
        max_pixels: See `read_header`.
        rendering: Bands and scale, needed for images other than 8-bit grey or RGB.

    Returns:
        uint8 (height, width, 3), RGB.

    Raises:
        ImageError: The file is damaged, truncated, too large, or of an unknown format, or it needs
            another rendering.
    """
    values = _read(data, read_header(data, max_pixels=max_pixels), rendering, reduce)
    image = values.array
    if not values.rendered:
        image, _ = to_uint8(values, *rendering.limits(values))
    return image[:, :, ::-1]


def _read(data: bytes, header: Header, rendering: Rendering, reduce: int = 1) -> Values:
    """Decode the bands that are shown."""
    if reduce > 1 and header.format != "JPEG":
        raise ImageError(f"only JPEG decodes at a reduced size, not {header.format}")
    if header.page is not None:
        return tiff.read_values(data, header.page, rendering)
    if header.dtype == "uint8" and rendering.bands is None:
        return Values(_decode(data, header, reduce), rendered=True)
    cmyk = header.format == "JPEG" and header.components == 4  # decoded to RGB
    colours = ("red", "green", "blue", "alpha") if header.components > 2 else ("gray", "alpha")
    count = 3 if cmyk else header.components
    bands = rendering.choose(count, header.dtype, colours[:count])
    unchanged = header.format != "JPEG"
    image = np.atleast_3d(_decode(data, header, reduce, unchanged=unchanged))
    channels = [(2, 1, 0, 3)[band - 1] if image.shape[2] > 2 else 0 for band in bands]
    channels = channels * 3 if len(channels) == 1 else channels[::-1]
    return Values(image[:, :, channels], rendered=header.dtype == "uint8")


def _decode(data: bytes, header: Header, reduce: int = 1, *, unchanged: bool = False) -> np.ndarray:
    """Decode to BGR, the order of opencv; `unchanged` keeps 16 bits, grey and alpha."""
    cv2 = _cv2()
    if header.format == "JPEG" and not jpeg.has_end(data):
        raise ImageError("truncated JPEG")
    if header.format == "PNG" and b"IEND" not in data[-64:]:
        raise ImageError("truncated PNG")
    flags = {
        1: cv2.IMREAD_UNCHANGED if unchanged else cv2.IMREAD_COLOR,
        2: cv2.IMREAD_REDUCED_COLOR_2,
        4: cv2.IMREAD_REDUCED_COLOR_4,
        8: cv2.IMREAD_REDUCED_COLOR_8,
    }[reduce] | (0 if unchanged else cv2.IMREAD_IGNORE_ORIENTATION)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise MemoryError(
                f"no memory for {header.width}x{header.height} pixels of {header.format}"
            ) from error
        raise ImageError(f"damaged {header.format}") from error
    if image is None:
        raise ImageError(f"damaged {header.format}")
    expected = (-(-header.height // reduce), -(-header.width // reduce), 3)
    if image.shape != expected and not (unchanged and image.shape[:2] == expected[:2]):
        raise ImageError(f"decoded to {image.shape}, but its header states {expected}")
    if header.format == "JPEG" and jpeg.ends_early(data, header.frame, image, reduce):
        raise ImageError("truncated JPEG")
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
        if header.format == "JPEG":  # as shards have it
            pixels = _decode(data, header)
        else:
            pixels = _read(data, header, DEFAULT).array
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
    rendering: Rendering = DEFAULT,
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
        rendering: see `decode`.

    Raises:
        ImageError: the image or the box cannot be used.
    """
    cv2 = _cv2()
    header = read_header(data, max_pixels=max_pixels)
    full = header.width, header.height
    region = crop_region(box, *full, context_ratio)
    verbatim = header.format == "JPEG" and header.components == 3 and rendering.bands is None
    if verbatim and full == (size, size) and region == (0.0, 0.0, *map(float, full)):
        return Square(data, region, full, _decode(data, header)[:, :, ::-1])

    reduce = _reduction(header, region, size)
    values = _read(data, header, rendering, reduce)
    x, y, w, h = (int(v) for v in region)
    if reduce > 1:
        # Crop on the reduced grid, and return the exact region. The last column and row of that
        # grid may cover fewer source pixels than the others: leave them out.
        columns, rows = full[0] // reduce, full[1] // reduce
        w, h = min(round(w / reduce), columns), min(round(h / reduce), rows)
        x, y = min(x // reduce, columns - w), min(y // reduce, rows - h)
        region = tuple(float(v * reduce) for v in (x, y, w, h))  # type: ignore[assignment]
    pixels, scaled_from = values.array[y : y + h, x : x + w], None
    if not values.rendered:
        limits = rendering.limits(values)
        pixels, scaled_from = to_uint8(replace(values, array=pixels), *limits)
    pixels = _resize(pixels, size)
    done, encoded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise ImageError("cannot be encoded as JPEG")
    return Square(encoded.tobytes(), region, full, pixels[:, :, ::-1], scaled_from)


def read_resized(
    data: bytes, size: int, *, rendering: Rendering = DEFAULT
) -> tuple[np.ndarray, tuple[int, int]]:
    """Decode an image file and resize all of it to a square, as `make_square` does.

    Args:
        data: the encoded file.
        size: side of the result in pixels.
        rendering: see `decode`.

    Returns:
        uint8 (size, size, 3), RGB; and width and height of the file's image.

    Raises:
        ImageError: the image cannot be used.
    """
    header = read_header(data)
    full = header.width, header.height
    reduce = _reduction(header, crop_region(None, *full, 1.0), size)
    pixels = decode(data, reduce=reduce, rendering=rendering)
    # the last column and row of a reduced grid may cover fewer pixels than the others
    return resize_square(pixels[: full[1] // reduce, : full[0] // reduce], size), full


def resize_square(pixels: np.ndarray, size: int) -> np.ndarray:
    """Resize an image to a square, as `make_square` does.

    Args:
        pixels: uint8 (height, width, 3).
        size: side of the result in pixels.

    Raises:
        ImageError: the image is smaller than `MIN_BOX` or larger than `MAX_PIXELS`.
    """
    height, width = pixels.shape[:2]
    if min(height, width) < MIN_BOX or height * width > MAX_PIXELS:
        raise ImageError(
            f"has {width}x{height} pixels: expected sides of at least {MIN_BOX:.0f}, and at most "
            f"{MAX_PIXELS:,} pixels"
        )
    return _resize(np.ascontiguousarray(pixels), size)


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
