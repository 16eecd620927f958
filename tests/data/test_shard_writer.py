"""Writing of shards."""

import errno

import pytest
from array_record.python import array_record_module

from satmip_jax.data.shard_writer import write_shard
from tests.data.tiny_records import records


def test_a_failed_shard_leaves_nothing(tmp_path):
    def rows():
        yield records(1)[0]
        raise RuntimeError("disk on fire")

    with pytest.raises(RuntimeError, match="disk on fire"):
        write_shard(tmp_path / "x", rows())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("reason", "number"),
    [("No space left on device", errno.ENOSPC), ("Input/output error", errno.EIO)],
)
def test_errors_of_the_disk_are_os_errors(tmp_path, monkeypatch, reason, number):
    """ArrayRecord raises RuntimeError with the text of the system, often only when it closes."""

    class Writer(array_record_module.ArrayRecordWriter):
        def close(self):
            super().close()
            raise RuntimeError(f"write() failed: {reason}; writing x; at byte 307200")

    monkeypatch.setattr(array_record_module, "ArrayRecordWriter", Writer)
    with pytest.raises(OSError, match=reason) as raised:
        write_shard(tmp_path / "x", records(1))
    assert raised.value.errno == number
    assert raised.value.filename == str(tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_the_first_error_is_raised(tmp_path, monkeypatch):
    class Writer(array_record_module.ArrayRecordWriter):
        def close(self):
            super().close()
            raise RuntimeError("write() failed: No space left on device")

    def rows():
        yield records(1)[0]
        raise ValueError("this record")

    monkeypatch.setattr(array_record_module, "ArrayRecordWriter", Writer)
    with pytest.raises(ValueError, match="this record"):
        write_shard(tmp_path / "x", rows())
