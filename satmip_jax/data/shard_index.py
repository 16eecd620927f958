"""Positions of the records in an ArrayRecord file, and a bound on what reading one allocates.

ArrayRecord decompresses before its caller learns a size: a file of 130 kB may take gigabytes. Here
headers alone are read. The file is a Riegeli file:

    chunk          header (hash, data size, hash of the data, type and number of records, decoded
                   size; 40 bytes), data, padding
    block header   24 bytes at each multiple of 64 KiB, which interrupt the chunks
    postscript     the chunk at 64 KiB before the end: position of the footer
    footer         a chunk with a record of metadata, then one per chunk of records: its position,
                   size and number of records

The hashes are checked by the reader itself, before it decompresses.

Format: https://github.com/google/riegeli/blob/master/doc/riegeli_records_file_format.md
"""

from __future__ import annotations

import os
import struct
from array import array
from dataclasses import dataclass
from typing import NamedTuple

MAX_RECORD_BYTES = 64 << 20  # a square of 4096 pixels takes about 16 MB
MAX_RECORDS = 1 << 20  # of a chunk; satmip writes one per chunk, and at most 1,000,000 per shard
_OVERHEAD = 1 << 20  # bytes by which the data of a chunk may exceed what they decode to
_BLOCK = 1 << 16
_BLOCK_HEADER = 24
_HEADER = struct.Struct("<8xQ8xQQ")
_CODECS = {ord("b"): "brotli", ord("z"): "zstd", ord("s"): "snappy"}


class IndexDamagedError(ValueError):
    """The index of a shard cannot be read."""


class RecordTooLargeError(ValueError):
    """A chunk states a size that is over the bound."""


@dataclass(frozen=True)
class ShardIndex:
    """Positions of the chunks of a shard.

    Attributes:
        offsets: Position of each chunk.
        group: Number of records of each chunk but the last.
    """

    offsets: array[int]
    group: int

    @classmethod
    def read(cls, path: str) -> ShardIndex:
        """Read the index of a file, without decompressing more than `MAX_RECORD_BYTES`.

        Raises:
            OSError: the file cannot be read.
            IndexDamagedError: the index is damaged, or the file is not an ArrayRecord file.
        """
        file = os.open(path, os.O_RDONLY)
        try:
            size = os.fstat(file).st_size
            if size < _BLOCK:
                raise IndexDamagedError("shorter than a block")
            postscript = _records(file, size - _BLOCK)
            footer = _records(file, _fields(postscript[0])[1]) if postscript else []
            entries = [_fields(record) for record in footer[1:]]
            counts = [entry[3] for entry in entries]
            if any(count != counts[0] for count in counts[:-1]) or 0 in counts:
                raise IndexDamagedError("chunks of different lengths")
            return cls(array("Q", [entry[1] for entry in entries]), counts[0] if counts else 1)
        except (IndexError, KeyError, OverflowError, RecordTooLargeError) as error:
            raise IndexDamagedError(str(error)) from error
        finally:
            os.close(file)

    def check(self, path: str, position: int) -> None:
        """Check the size that the header of a record's chunk states.

        Args:
            path: path of the file.
            position: number of the record in the file.

        Raises:
            OSError: the file cannot be read.
            IndexDamagedError: there is no such chunk, or it is not one that ArrayRecord writes by
                default.
            RecordTooLargeError: the chunk decodes to more than `MAX_RECORD_BYTES`.
        """
        chunk = position // self.group
        if chunk >= len(self.offsets):
            raise IndexDamagedError("not in the index")
        file = os.open(path, os.O_RDONLY)
        try:
            _header(file, self.offsets[chunk])
        finally:
            os.close(file)


class _Header(NamedTuple):
    data_size: int
    records: int
    decoded_size: int


def _header(file: int, offset: int) -> _Header:
    """Read and check the header of a chunk of records."""
    data_size, kind, decoded = _HEADER.unpack(_read(file, offset, _HEADER.size))
    header = _Header(data_size, kind >> 8, decoded)
    if kind & 255 != ord("r"):  # transposed chunks do not state what they allocate
        raise IndexDamagedError("not a plain chunk of records")
    if decoded > MAX_RECORD_BYTES:
        raise RecordTooLargeError(f"{decoded:,} bytes, more than {MAX_RECORD_BYTES:,}")
    if data_size > decoded + _OVERHEAD or header.records > MAX_RECORDS:
        raise IndexDamagedError("sizes that do not fit each other")
    return header


def _records(file: int, offset: int) -> list[bytes]:
    """Return the records of a chunk of the index."""
    header = _header(file, offset)
    data = _read(file, _skip(offset, _HEADER.size), header.data_size)
    codec = data[0]
    size, start = _varint(data, 1)
    lengths = _decompress(codec, data[start : start + size], 10 * header.records)
    values = _decompress(codec, data[start + size :], header.decoded_size)
    records, at, begin = [], 0, 0
    for _ in range(header.records):
        length, at = _varint(lengths, at)
        records.append(values[begin : begin + length])
        begin += length
    return records


def _decompress(codec: int, data: bytes, max_size: int) -> bytes:
    """Return the content of a compressed buffer."""
    if not codec:
        return data
    if codec not in _CODECS:
        raise IndexDamagedError(f"unknown compression {codec}")
    size, start = _varint(data, 0)
    if size > max_size:
        raise IndexDamagedError("sizes that do not fit each other")
    import pyarrow as pa

    try:
        return bytes(pa.Codec(_CODECS[codec]).decompress(data[start:], size, asbytes=True))
    except (OSError, ValueError) as error:
        raise IndexDamagedError(str(error)) from error


def _fields(message: bytes) -> dict[int, int]:
    """Return the fields of a protobuf message of integers."""
    fields, at = {}, 0
    while at < len(message):
        tag, at = _varint(message, at)
        if tag & 7:
            raise IndexDamagedError("not an integer")
        fields[tag >> 3], at = _varint(message, at)
    return fields


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the integer at a position, and the position after it."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value & (2**64 - 1), at
        if shift > 63:
            raise IndexDamagedError("an integer of more than 64 bits")


def _skip(offset: int, count: int) -> int:
    """Return the position `count` bytes of content after another."""
    while count:
        offset = _after_block_header(offset)
        step = min(count, _BLOCK - offset % _BLOCK)
        offset, count = offset + step, count - step
    return offset


def _after_block_header(offset: int) -> int:
    return offset + max(0, _BLOCK_HEADER - offset % _BLOCK)


def _read(file: int, offset: int, count: int) -> bytes:
    """Read `count` bytes of content, without block headers."""
    parts = []
    while count:
        offset = _after_block_header(offset)
        part = os.pread(file, min(count, _BLOCK - offset % _BLOCK), offset)
        if not part:
            raise IndexDamagedError("it ends within a chunk")
        parts.append(part)
        offset, count = offset + len(part), count - len(part)
    return b"".join(parts)
