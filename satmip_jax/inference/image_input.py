"""Images as people have them (files, arrays, PIL images) to squares of uint8."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from satmip_jax.data import images
from satmip_jax.data.images import MAX_PIXELS, ImageError
from satmip_jax.runtime.files import FileContentError, read_bounded

MAX_FILE_BYTES = 1 << 30

Size = tuple[int, int]  # width and height, pixels


@dataclass(frozen=True)
class InputProblem:
    """An input that cannot be used.

    Attributes:
        index: its position among the inputs.
        name: its path, or its position in words.
        reason: what is wrong with it.
    """

    index: int
    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


@dataclass(frozen=True)
class ImageRows:
    """Some images of the input, as rows of a batch.

    Attributes:
        pixels: uint8 (n, s, s, 3), RGB; black where the image cannot be used.
        sizes: width and height of each image before it was resized; (s, s) where it is unknown.
        problems: the images that cannot be used.
    """

    pixels: np.ndarray
    sizes: list[Size]
    problems: list[InputProblem]


def as_list(inputs: Any) -> list[Any]:
    """Return images as a list: one image, an array of them, or any iterable.

    Example:
        >>> from satmip_jax.inference.image_input import as_list
        >>> as_list("scene.tif")
        ['scene.tif']
        >>> len(as_list(np.zeros((5, 64, 64, 3), np.uint8)))
        5
    """
    if isinstance(inputs, str | os.PathLike | bytes | Image.Image):
        return [inputs]
    if hasattr(inputs, "ndim") and inputs.ndim <= 3 and inputs.dtype != object:
        return [inputs]
    return list(inputs)


def read_rows(inputs: Sequence[Any], first: int, size: int) -> ImageRows:
    """Read images; one that cannot be used becomes a problem and a black row.

    Args:
        inputs: paths, uint8 arrays (height, width, 3) or (height, width), or PIL images.
        first: position of the first one among all inputs.
        size: side of the squares, pixels.
    """
    pixels = np.zeros((len(inputs), size, size, 3), np.uint8)
    sizes, problems = [], []
    for row, item in enumerate(inputs):
        source_size = size, size
        try:
            pixels[row], source_size = read_image(item, size)
        except (ImageError, FileContentError, OSError) as error:
            is_path = isinstance(item, str | os.PathLike)
            name = os.fspath(item) if is_path else f"image {first + row}"
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            problems.append(InputProblem(first + row, str(name), reason))
        sizes.append(source_size)
    return ImageRows(pixels, sizes, problems)


def read_image(item: Any, size: int) -> tuple[np.ndarray, Size]:
    """Return one image as a square, resized as `satmip prepare` does, and its size before.

    Args:
        item: see `read_rows`.
        size: side of the square, pixels.

    Returns:
        uint8 (size, size, 3), RGB; width and height of the image.

    Raises:
        ImageError: the image is damaged, too large, or not of 8 bits, or is no image.
        OSError: the file cannot be read.
        FileContentError: the file is too large.
    """
    if isinstance(item, str | os.PathLike):
        return images.read_resized(read_bounded(Path(item), MAX_FILE_BYTES), size)
    if isinstance(item, Image.Image):
        array = _from_pil(item)
    elif hasattr(item, "__array__"):
        array = np.asarray(item)
    else:
        raise ImageError(f"is a {type(item).__name__}: give a path, a uint8 array or a PIL image")
    if array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 1):
        array = np.repeat(array.reshape(*array.shape[:2], 1), 3, axis=2)
    if array.ndim != 3 or array.shape[2] != 3:
        raise ImageError(f"has shape {array.shape}: expected (height, width, 3) or (height, width)")
    if array.dtype != np.uint8:
        raise ImageError(
            f"is {array.dtype}, whose scale is unknown: convert it to uint8, 0 to 255, first"
        )
    return images.resize_square(array, size), (array.shape[1], array.shape[0])


def _from_pil(image: Image.Image) -> np.ndarray:
    """Return the pixels of a PIL image of 8 bits, without its alpha channel."""
    if image.width * image.height > MAX_PIXELS:
        raise ImageError(f"has {image.width}x{image.height} pixels, more than {MAX_PIXELS:,}")
    if image.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"):
        raise ImageError(f"has the mode {image.mode}: convert it to RGB of 8 bits first")
    try:
        return np.asarray(image.convert("RGB"))
    except (SyntaxError, ValueError) as error:  # how PIL reports damage, beside OSError
        raise ImageError(f"damaged: {error}") from error
