"""JPEG files: the frame header, and whether the compressed data are complete.

libjpeg fills the missing part of a file with grey and only warns, and OpenCV passes no warning on.
"""

from __future__ import annotations

import io
import struct

import numpy as np

from satmip_jax.data.image_errors import ImageError

_MAX_SEGMENTS = 4096  # of a header; a real one has a few dozen
_NOT_A_FRAME = {0xC4, 0xC8, 0xCC}  # DHT, JPG, DAC: their codes are among those of frames
_SEQUENTIAL = (0xC0, 0xC1)
_PROGRESSIVE = 0xC2
_START_OF_SCAN, _END = b"\xff\xda", b"\xff\xd9"
_TOLERANCE = 3_000  # thousandths of a grey level
_SMALL = 32 * 32  # pixels of an image of so few blocks that a cut is likely to be in the last

# Compressed data that change what follows: zero first, in case that the data end within a stuffed
# byte; then, after every restart marker, bytes that are no marker.
_FILLER = b"\0" + b"".join(
    marker + bytes(range(1, 255, 3))
    for marker in (b"", *(bytes((0xFF, 0xD0 + i)) for i in range(8)))
)


def read_frame(data: bytes) -> tuple[int, int, int, int]:
    """Walk the segments up to the frame header, as libjpeg does; about 3 us.

    Returns:
        Position of the frame header, width and height in pixels, and number of channels.

    Raises:
        ImageError: The header is damaged, or of a process that OpenCV does not decode.
    """
    position, size = 2, len(data)
    for _ in range(_MAX_SEGMENTS):
        position = data.find(b"\xff", position)
        if position < 0:
            break
        while position < size and data[position] == 0xFF:
            position += 1
        if size < position + 3:
            break
        marker = data[position]
        if marker <= 1 or 0xD0 <= marker <= 0xD8:  # these carry no length
            position += 1
            continue
        if marker in (0xD9, 0xDA):
            break
        length = data[position + 1] << 8 | data[position + 2]
        if 0xC0 <= marker <= 0xCF and marker not in _NOT_A_FRAME:
            if length < 8 or size < position + 9:
                break
            bits, height, width, components = struct.unpack_from(">BHHB", data, position + 3)
            if bits != 8:
                raise ImageError(f"JPEG of {bits} bits, not 8: convert it to PNG or TIFF")
            return position, width, height, components
        position += 1 + max(length, 2)
    raise ImageError("damaged JPEG header")


def has_end(data: bytes) -> bool:
    """Return whether an end marker follows the last scan.

    Most files end with it; a search takes a twentieth of the time of decoding.
    """
    return data.endswith(_END) or data.find(_END, data.rfind(_START_OF_SCAN)) >= 0


def ends_early(data: bytes, frame: int, image: np.ndarray, reduce: int = 1) -> bool:
    """Return whether the compressed data end before the last blocks, in spite of an end marker.

    The blocks that a sequential file lacks are decoded to medium grey. If the last ones are not
    grey, the file is complete: this check takes less than 1 us. Otherwise, and for progressive
    files, the file is decoded with more data before the end marker. Pixels change only if the
    decoder needed them. A loss within the very last blocks is not always detected.

    Args:
        data: The file, with an end marker.
        frame: Position of the frame header, see `read_frame`.
        image: The decoded image, uint8 (height, width, 3), BGR.
        reduce: Factor by which the image was reduced in decoding.
    """
    try:
        # baseline or extended; grey or three channels; one scan of them all
        scan = data.find(_START_OF_SCAN, frame)
        if (
            data[frame] in _SEQUENTIAL
            and data[frame + 8] < 4
            and data[scan + 4] == data[frame + 8]
            and image.size * reduce * reduce > 3 * _SMALL
            and not (_is_grey(image[-1, -1]) and _ends_grey(data, frame, image, reduce))
        ):
            return False
        if data[frame] == _PROGRESSIVE and not _has_all_scans(data, frame):
            return True
    except (IndexError, ValueError, ZeroDivisionError):  # headers that libjpeg understood
        return True
    end = data.find(_END, scan)
    if data[frame] == _PROGRESSIVE:  # tables between scans may contain the bytes of a marker
        end = data.find(_END, data.rfind(_START_OF_SCAN, 0, data.rfind(_END)))
    shorter, longer = _decode(data), _decode(data[:end] + _FILLER + data[end:])
    return shorter is None or longer is None or not np.array_equal(shorter, longer)


def _is_grey(pixel: np.ndarray) -> bool:
    """Return whether a pixel is of medium brightness; its hue may come from blocks beside it."""
    blue, green, red = pixel.tolist()
    return abs(114 * blue + 587 * green + 299 * red - 128_000) <= _TOLERANCE


def _ends_grey(data: bytes, frame: int, image: np.ndarray, reduce: int) -> bool:
    """Return whether all pixels of the blocks that are coded last are of medium brightness."""
    across = down = 8  # of a single component, whatever its factors
    if data[frame + 8] > 1:
        factors = [data[frame + 10 + 3 * i] for i in range(data[frame + 8])]
        across, down = 8 * max(f >> 4 for f in factors), 8 * max(f & 15 for f in factors)
    height, width = struct.unpack_from(">HH", data, frame + 4)
    left = (width - 1) // across * across // reduce
    top = (height - 1) // down * down // reduce
    return all(_is_grey(pixel) for row in image[top:, left:] for pixel in row)


def _has_all_scans(data: bytes, frame: int) -> bool:
    """Return whether the scans of a progressive file refine every coefficient to its last bit."""
    missing: dict[tuple[int, int], int] = {}  # (component, coefficient) -> bits
    for i in range(data[frame + 8]):
        missing[data[frame + 9 + 3 * i], 0] = 16
    scan = data.find(_START_OF_SCAN, frame)
    while scan >= 0:
        components = data[scan + 5 : scan + 5 + 2 * data[scan + 4] : 2]
        first, last, bits = data[scan + 5 + 2 * data[scan + 4] :][:3]
        for component in components:
            for coefficient in range(first, min(last, 63) + 1):
                missing[component, coefficient] = bits & 15
        scan = data.find(_START_OF_SCAN, scan + 2)
    return not any(missing.values())


def _decode(data: bytes) -> np.ndarray | None:
    """Decode by PIL, which does not print libjpeg's warnings."""
    from PIL import JpegImagePlugin

    try:
        return np.asarray(JpegImagePlugin.JpegImageFile(io.BytesIO(data)))
    except Exception:  # as many kinds as the parser has
        return None
