"""Positions of records, and records that would exhaust the memory."""

import os
import struct
import subprocess
import sys

import pytest
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from satmip_jax.data import shard_index
from satmip_jax.data.shard_dataset import ShardDataset
from satmip_jax.data.shard_format import ShardError
from satmip_jax.data.shard_index import IndexDamagedError, RecordTooLargeError, ShardIndex
from tests.conftest import REPOSITORY
from tests.data.tiny_records import first_shard

BOMB = 300 << 20


def write(path, records, options="group_size:1,snappy"):
    writer = ArrayRecordWriter(os.fspath(path), options)
    for record in records:
        writer.write(record)
    writer.close()
    return os.fspath(path)


@pytest.mark.parametrize("codec", ["snappy", "zstd:3", "brotli:3", "uncompressed"])
@pytest.mark.parametrize("group", [1, 3])
def test_positions(tmp_path, codec, group):
    """The position of a chunk leads to its header, also past the headers of blocks."""
    records = [os.urandom(9973 * (i % 5)) for i in range(40)]
    path = write(tmp_path / "x", records, f"group_size:{group},{codec}")
    index = ShardIndex.read(path)
    assert index.group == group
    assert len(index.offsets) == -(-len(records) // group)
    for i in range(len(records)):
        index.check(path, i)
    file = os.open(path, os.O_RDONLY)
    for i, offset in enumerate(index.offsets):
        header = shard_index._header(file, offset)
        chunk = records[group * i : group * (i + 1)]
        assert (header.records, header.decoded_size) == (len(chunk), sum(map(len, chunk)))
    os.close(file)


def test_no_records(tmp_path):
    path = write(tmp_path / "x", [])
    assert len(ShardIndex.read(path).offsets) == 0


def test_a_record_over_the_bound_is_refused_by_its_header(prepared):
    """It takes no memory: 300 MB of zeros are a file of 131 kB."""
    path = first_shard(prepared)
    good = ArrayRecordReader(os.fspath(path)).read([1, 2, 3])
    write(path, [bytes(BOMB), *good], "group_size:1,zstd:3")
    assert path.stat().st_size < 1 << 20
    code = """if True:
        import resource, sys
        from satmip_jax.data.shard_dataset import ShardDataset
        data = ShardDataset(sys.argv[1], "train")
        data[1]
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            data[0]
        except ValueError as error:
            print(error)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """
    done = subprocess.run(
        [sys.executable, "-c", code, prepared],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": os.fspath(REPOSITORY)},
    )
    message, kilobytes = done.stdout.splitlines()
    assert f"{path.name}, record 0: damaged or malicious: {BOMB:,} bytes, more than" in message
    assert int(kilobytes) < 20_000


def test_an_index_over_the_bound_is_refused_at_opening(prepared):
    """The footer states its decoded size, too."""
    path = first_shard(prepared)
    content = bytearray(path.read_bytes())
    (postscript,) = shard_index._records(
        path_fd := os.open(path, os.O_RDONLY), len(content) - 65536
    )[:1]
    os.close(path_fd)
    footer = shard_index._fields(postscript)[1]
    content[footer + 32 : footer + 40] = struct.pack("<Q", 1 << 40)
    path.write_bytes(content)
    with pytest.raises(IndexDamagedError, match="more than"):
        ShardIndex.read(os.fspath(path))
    with pytest.raises(ShardError, match="damaged or truncated"):
        ShardDataset(prepared, "train")


def test_transposed_chunks_are_refused(tmp_path):
    """Their headers do not state what their parts decode to."""
    path = write(tmp_path / "x", [b"record"], "group_size:1,transpose:true,snappy")
    with pytest.raises(IndexDamagedError, match="plain chunk"):
        ShardIndex.read(path).check(path, 0)


def test_sizes_that_do_not_fit_each_other(tmp_path):
    path = write(tmp_path / "x", [b"record"])
    index = ShardIndex.read(path)
    content = bytearray((tmp_path / "x").read_bytes())
    at = index.offsets[0]
    for field, value, error in [
        (8, 1 << 40, IndexDamagedError),  # the size of the data
        (24, ord("r") | 1 << 50, IndexDamagedError),  # the number of records
        (32, 1 << 40, RecordTooLargeError),  # the decoded size
    ]:
        changed = bytearray(content)
        changed[at + field : at + field + 8] = struct.pack("<Q", value)
        (tmp_path / "x").write_bytes(changed)
        with pytest.raises(error):
            index.check(path, 0)
