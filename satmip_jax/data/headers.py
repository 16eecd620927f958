"""Formats and sizes of image files, read and bounded before any pixel is decoded."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import Any

from satmip_jax.data import jp2, jpeg, tiff
from satmip_jax.data.image_errors import ImageError

# fMoW holds real images of 16,288 x 16,291 pixels; three bytes a pixel make this 1.2 GB.
MAX_PIXELS = 400_000_000
MAX_SIDE = 65_535  # JPEG's own limit
TAGGED = (".tif", ".tiff", ".jp2")  # suffixes of images with coordinates, which are cut into tiles
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", *TAGGED)  # of the formats that are read


@dataclass(slots=True)  # not frozen, which would take 1 us per decoded image
class Header:
    """Header of an image file.

    Attributes:
        format: "JPEG", "PNG", "TIFF", "WEBP" or "JPEG 2000".
        width: In pixels.
        height: In pixels.
        components: Number of channels or bands.
        dtype: Type of the stored values, such as "uint8", "uint16" or "float32".
        frame: Position of a JPEG's frame header.
        page: The page of a TIFF that is the image; also of JPEG 2000.
    """

    format: str
    width: int
    height: int
    components: int
    dtype: str = "uint8"
    frame: int = field(default=0, compare=False, repr=False)
    page: tiff.Page | None = field(default=None, compare=False, repr=False)


def read_header(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Header:
    """Read format and size without decoding.

    Args:
        data: An encoded file: JPEG, PNG, TIFF (also BigTIFF), WebP or JPEG 2000.
        max_pixels: Limit of width x height, against decompression bombs.

    Raises:
        ImageError: The format is unknown, the header is damaged, the image is too large, or a TIFF
            has no page that is clearly the image.

    Example:
        >>> from satmip_jax.data.headers import read_header
        >>> from satmip_jax.data.images import encode_png
        >>> read_header(encode_png(np.zeros((2, 3, 3), np.uint8)))
        Header(format='PNG', width=3, height=2, components=3, dtype='uint8')
    """
    if data[:2] == b"\xff\xd8":
        position, width, height, components = jpeg.read_frame(data)
        header = Header("JPEG", width, height, components, frame=position)
    elif data[:4] in tiff.MAGIC or jp2.is_jp2(data):
        page = jp2.read_page(data) if jp2.is_jp2(data) else tiff.read_page(data)
        header = Header(page.format, page.width, page.height, page.bands, page.dtype, page=page)
    else:
        header = _other_header(data)
    width, height = header.width, header.height
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE):
        raise ImageError(f"impossible image size {width}x{height}")
    if width * height > max_pixels:
        raise ImageError(f"{width}x{height} pixels, more than the limit of {max_pixels:,}")
    if header.dtype == "uint16" and 2 * width * height > max_pixels:
        raise ImageError(
            f"{width}x{height} pixels of 16 bits, more than the limit of {max_pixels // 2:,}"
        )
    if header.page is not None:
        tiff.check_size(header.page, len(data), 3 * max_pixels)
    return header


def _other_header(data: bytes) -> Header:
    # The plug-in classes, not PIL.Image.open, which tries every format it knows and warns about
    # sizes that are ordinary for satellite images.
    from PIL import PngImagePlugin, WebPImagePlugin

    plugins: tuple[tuple[str, bytes, Any], ...] = (
        ("PNG", b"\x89PNG\r\n\x1a\n", PngImagePlugin.PngImageFile),
        ("WEBP", b"RIFF", WebPImagePlugin.WebPImageFile),
    )
    for name, magic, plugin in plugins:
        if data.startswith(magic):
            try:
                image = plugin(io.BytesIO(data))
                width, height = image.size
                dtype = "uint16" if name == "PNG" and data[24] == 16 else "uint8"
                channels = 3 if image.mode == "P" else len(image.getbands())  # a palette of RGB
                return Header(name, width, height, channels, dtype)
            except Exception as error:  # the parsers raise exceptions of many kinds
                raise ImageError(f"damaged {name} header: {type(error).__name__}") from error
    if not data:
        raise ImageError("empty file")
    raise ImageError("not a JPEG, PNG, TIFF, WebP or JPEG 2000 file")
