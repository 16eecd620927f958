"""Character encodings of untrusted text files: UTF-8, UTF-16 and Windows-1252.

A file is never read with replacement characters, which would merge different labels: it is
decoded completely, or rejected.
"""

from __future__ import annotations

import codecs
import gzip
import io
import re
from pathlib import Path
from typing import IO, NamedTuple

from satmip_jax.sources.base import SourceError

MAX_BYTES = 64 << 30  # of text, decompressed
_CHUNK = 1 << 20
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # it starts like the mark of UTF-16
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_MULTIBYTE = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xf4][\x80-\xbf]{2,3}")
# Bytes that Windows-1252 does not have, or that no text has.
_NOT_1252 = re.compile(rb"[\x00-\x08\x0e-\x1b\x7f\x81\x8d\x8f\x90\x9d]")
# Four different characters outside ASCII in a row: words of Cyrillic, Chinese, Japanese ...
_NOT_WESTERN = re.compile(rb"([\x80-\xff])(?!\1\1\1)[\x80-\xff]{3}")


class Encoding(NamedTuple):
    """The encoding of a text file.

    Attributes:
        codec: Name of the Python codec.
        damaged_line: Number of the first line that `codec` cannot decode; 0 if there is none.
    """

    codec: str
    damaged_line: int = 0

    @property
    def notice(self) -> str:
        """A sentence for users; "" for intact UTF-8."""
        if self.codec.startswith("utf-8"):
            return ""
        name = {"cp1252": "Windows-1252 (cp1252)"}.get(self.codec, self.codec.upper())
        hint = ": if names look wrong, save it as UTF-8" if self.codec == "cp1252" else ""
        return f"encoding: {name}{hint}"


def open_bytes(path: Path) -> IO[bytes]:
    """Open a file, decompressed if it is called .gz."""
    if path.suffix.lower() == ".gz":
        return gzip.open(path, "rb")  # type: ignore[return-value]
    return path.open("rb")


def open_text(path: Path, encoding: Encoding, newline: str = "\n") -> IO[str]:
    r"""Open a text file; lines end with `newline` only.

    Damaged bytes become lone surrogates, which `encode("utf-8")` rejects.
    """
    errors = "surrogateescape" if encoding.damaged_line else "strict"
    file: IO[bytes] = open_bytes(path)
    return io.TextIOWrapper(file, encoding=encoding.codec, errors=errors, newline=newline)


def detect(path: Path) -> Encoding:
    r"""Return the encoding of a text file; reads all of it.

    Windows-1252 has no signature. It is assumed for bytes that are not UTF-8, that it can decode,
    and that do not look like another language's encoding.

    Raises:
        SourceError: The encoding is unknown; the message says how to save the file.

    Example:
        >>> from satmip_jax.sources.text_encoding import detect
        >>> _ = Path("metadata.csv").write_bytes("path,label\na.png,Wäld\n".encode("latin-1"))
        >>> detect(Path("metadata.csv")).codec
        'cp1252'
    """
    with open_bytes(path) as file:
        start = file.read(_CHUNK)
        for mark, codec in _BYTE_ORDER_MARKS:
            if start.startswith(mark) and codec != "utf-8-sig":
                return Encoding(codec)
        if codec := _utf16_without_mark(start):
            return Encoding(codec)
        codec = "utf-8-sig" if start.startswith(codecs.BOM_UTF8) else "utf-8"
        return _scan(path, file, start, codec)


def _utf16_without_mark(start: bytes) -> str:
    """Return the codec if every other byte of ASCII characters is zero; "" otherwise."""
    even, odd = start[0:4096:2], start[1:4096:2]
    if len(odd) < 4:
        return ""
    first, second = even.count(0), odd.count(0)
    if max(first, second) < len(odd) / 8 or 10 * min(first, second) > max(first, second):
        return ""
    return "utf-16-le" if second > first else "utf-16-be"


def _scan(path: Path, file: IO[bytes], data: bytes, codec: str) -> Encoding:
    line, damaged_line, total = 1, 0, 0
    multibyte, western = codec == "utf-8-sig", True
    rest = b""
    while data:
        total += len(data)
        if total > MAX_BYTES:
            raise SourceError(f"{path}: more than {MAX_BYTES >> 30} GiB: split the file")
        western = western and not _NOT_1252.search(data) and not _NOT_WESTERN.search(data)
        block = rest + data
        data = file.read(_CHUNK)
        if not damaged_line:
            try:
                text, used = codecs.utf_8_decode(block, "strict", not data)
            except UnicodeDecodeError as error:
                damaged_line = line + block.count(b"\n", 0, error.start)
            else:
                multibyte = multibyte or len(text) < used
                line += block.count(b"\n", 0, used)
                rest = block[used:]
                continue
        multibyte = multibyte or _MULTIBYTE.search(block) is not None
        rest = b""
    if not damaged_line:
        return Encoding(codec)
    if multibyte:  # UTF-8 after all, with damaged lines
        return Encoding(codec, damaged_line)
    if western:
        return Encoding("cp1252")
    raise unknown_encoding(path, damaged_line)


def unknown_encoding(path: Path, line: int) -> SourceError:
    """Return the error to raise for a file that no encoding fits.

    Args:
        path: The file.
        line: Number of the first line that is not UTF-8.
    """
    return SourceError(
        f"{path}: unknown or mixed text encodings: line {line} is not UTF-8, and the file is "
        "neither UTF-16 nor Windows-1252: save the table as UTF-8"
    )
