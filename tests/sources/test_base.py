"""Bounded reading of files."""

import os
import sys
import threading

import pytest

from satmip_jax.sources.base import UnreadableExample, read_file


def test_a_file_is_read_up_to_its_limit(tmp_path):
    path = tmp_path / "image.jpg"
    path.write_bytes(b"x" * 1000)
    assert read_file(path, 1000) == b"x" * 1000
    with pytest.raises(UnreadableExample, match="more than 999 bytes"):
        read_file(path, 999)
    path.write_bytes(b"")
    assert read_file(path, 10) == b""
    with pytest.raises(UnreadableExample, match="cannot be read: No such file"):
        read_file(tmp_path / "none.jpg", 10)


@pytest.mark.skipif(sys.platform == "win32", reason="has no named pipes in folders")
def test_named_pipes_are_rejected_without_blocking(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    found = []

    def read() -> None:
        with pytest.raises(UnreadableExample, match="not a regular file"):
            read_file(tmp_path / "pipe.jpg", 10)
        found.append(True)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(10)
    assert found


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="Linux's")
def test_files_that_grow_are_not_truncated(tmp_path):
    with pytest.raises(UnreadableExample, match="grew while it was read"):
        read_file("/proc/self/status", 1 << 20)  # its size is reported as 0
