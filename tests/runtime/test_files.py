"""Atomic writes and bounded JSON."""

import json
import os

import pytest
from etils import epath

from satmip_jax.errors import SatmipError
from satmip_jax.runtime import files
from satmip_jax.runtime.files import (
    FileContentError,
    atomic_path,
    read_bounded,
    read_json,
    read_json_object,
    write_atomically,
)


@pytest.mark.parametrize("durable", [False, True])
@pytest.mark.parametrize("data", ["grün\n", b"\x00\xff"])
def test_write_replaces_the_content(tmp_path, data, durable):
    path = tmp_path / "file"
    path.write_text("old")
    write_atomically(path, data, durable=durable)
    assert path.read_bytes() == (data.encode() if isinstance(data, str) else data)
    assert [*tmp_path.iterdir()] == [path]


def test_failed_write_keeps_the_old_file_and_leaves_no_other(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    def write():
        with atomic_path(path) as temporary:
            assert temporary.parent == tmp_path  # a rename across file systems would copy
            temporary.write_text("half of the n")
            assert path.read_text() == "old"
            raise RuntimeError("decoder failed")

    with pytest.raises(RuntimeError, match="decoder failed"):
        write()
    assert [*tmp_path.iterdir()] == [path]
    assert path.read_text() == "old"


def test_full_disk_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_text("old")

    def no_space(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", no_space)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, "new", durable=True)
    assert [*tmp_path.iterdir()] == [path]
    assert path.read_text() == "old"


def test_writers_at_the_same_time_do_not_share_a_temporary_file(tmp_path):
    with atomic_path(tmp_path / "file") as one, atomic_path(tmp_path / "file") as other:
        one.write_text("one")
        other.write_text("other")
    assert (tmp_path / "file").read_text() == "one"  # the outer block ends last


def test_durable_write_syncs_before_the_rename(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(files.os, "fsync", lambda fd: (calls.append("fsync"), fsync(fd)))
    monkeypatch.setattr(files.os, "replace", lambda a, b: (calls.append("rename"), replace(a, b)))
    write_atomically(tmp_path / "file", "text", durable=True)
    assert calls == ["fsync", "rename"]


@pytest.mark.parametrize("make", [str, lambda path: path, epath.Path])
def test_read_json(tmp_path, make):
    path = tmp_path / "value.json"
    path.write_text(json.dumps({"a": [1, None]}))
    assert read_json(make(path)) == {"a": [1, None]}
    assert read_json_object(make(path)) == {"a": [1, None]}


def test_size_is_checked_before_reading(tmp_path, monkeypatch):
    path = tmp_path / "large.json"
    path.write_text("[" + "1," * 1000 + "1]")
    assert len(read_json(path, max_bytes=path.stat().st_size)) == 1001
    monkeypatch.setattr(type(path), "open", lambda *_: pytest.fail("a large file was opened"))
    with pytest.raises(FileContentError, match=r"large.json has 2,003 bytes, more than .* 100"):
        read_json(path, max_bytes=100)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", r"value.json is not JSON: Expecting"),
        (b"\xff\xfe\x00", r"value.json is not JSON: "),
        (b"[" * 100_000, r"value.json: JSON of more than 100 levels"),
        (b"[1]", r"value.json holds a list: expected an object"),
    ],
)
def test_errors_name_the_file(tmp_path, content, message):
    path = tmp_path / "value.json"
    path.write_bytes(content)
    with pytest.raises(SatmipError, match=message):
        read_json_object(path)


def test_constants_outside_json_are_refused_on_request(tmp_path):
    path = tmp_path / "value.json"
    path.write_text("[NaN]")
    assert len(read_json(path)) == 1
    with pytest.raises(FileContentError, match="NaN is not a JSON number"):
        read_json(path, allow_nan=False)


def test_missing_file_is_the_ordinary_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_bounded(tmp_path / "absent", 10)


@pytest.mark.parametrize("levels", [101, 900, 5000])
def test_deep_json_is_rejected_by_every_python(tmp_path, levels):
    path = tmp_path / "deep.json"
    for opening, closing in (('{"a":', "}"), ("[", "]")):
        path.write_text(opening * levels + "1" + closing * levels)
        with pytest.raises(FileContentError, match=r"deep\.json: JSON of more than 100 levels"):
            read_json(path)
        path.write_text(opening * 100 + "1" + closing * 100)
        read_json(path)
