"""Objects in a bucket: faults of the store, folders, and writes that appear whole."""

import os
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial

import pytest

from satmip_jax.runtime import stores
from satmip_jax.runtime.files import atomic_path, read_json, write_atomically
from satmip_jax.runtime.paths import as_path
from satmip_jax.runtime.stores import StoreError, store_errors
from tests.conftest import REPOSITORY
from tests.drill_folders import injected


def test_a_store_that_is_busy_is_asked_again(bucket, bucket_server):
    bucket_server.answers.append(503)
    write_atomically(f"{bucket}/a.json", "[1]")
    bucket_server.answers.append(503)
    assert read_json(f"{bucket}/a.json") == [1]
    assert not bucket_server.answers


def test_missing_credentials_are_two_lines(bucket, bucket_server, caplog):
    bucket_server.answers.append(401)
    with pytest.raises(StoreError) as error:
        stores.check_access(as_path(bucket))
    first, second = str(error.value).splitlines()
    assert first.startswith("gs://bucket cannot be accessed")
    assert "gcloud auth application-default login" in second
    assert not caplog.records  # nothing else is shown


def test_a_failed_write_leaves_the_old_object(bucket):
    path = as_path(bucket) / "a"
    stores.put(path, b"old")
    with suppress(RuntimeError), atomic_path(path) as temporary:
        temporary.write_bytes(b"new")
        raise RuntimeError
    assert not temporary.parent.exists()
    assert stores.get(path) == b"old"


def test_an_upload_that_arrives_changed_is_repeated(bucket, bucket_server, tmp_path):
    path, local = as_path(bucket) / "a", tmp_path / "a"
    local.write_bytes(b"x" * 100)
    for write in (partial(stores.put, path), lambda _: stores.put_file(local, path)):
        bucket_server.torn.append(None)
        write(b"x" * 100)
        assert stores.get(path) == b"x" * 100
        bucket_server.torn.extend([None] * 2)
        with pytest.raises(StoreError, match="another checksum"):
            write(b"x" * 100)
        assert not bucket_server.torn


def test_an_object_that_is_created_has_all_its_bytes(bucket, bucket_server):
    path = as_path(bucket) / "claim"
    bucket_server.torn.append(None)
    assert stores.create(path, b"first" * 20)
    assert stores.get(path) == b"first" * 20
    assert not stores.create(path, b"second")
    assert not bucket_server.torn


def test_a_store_that_stays_silent_is_asked_again(bucket, bucket_server, monkeypatch):
    import fsspec
    from aiohttp import ClientTimeout

    path = as_path(bucket) / "a"
    stores.put(path, b"x")
    options = fsspec.config.conf["gs"]
    assert options["requests_timeout"].sock_read <= 60  # no limit by default
    monkeypatch.setitem(options, "requests_timeout", ClientTimeout(sock_read=0.2))
    bucket_server.silent.append(1.0)
    assert stores.get(path) == b"x"
    assert not bucket_server.silent
    with pytest.raises(StoreError, match="/a: the store does not answer"), store_errors(path):
        raise fsspec.exceptions.FSTimeoutError


def test_the_server_of_a_drill_ends_with_the_drill():
    code = "from tests.drill_folders import bucket_server as b; s = b('x'); print(s.__enter__())"
    drill = subprocess.Popen(
        [sys.executable, "-c", f"{code}; input()"],
        cwd=REPOSITORY,
        env={k: v for k, v in os.environ.items() if k != "STORAGE_EMULATOR_HOST"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    url = drill.stdout.readline().strip()
    injected(url)
    drill.kill()
    drill.communicate()
    for _ in range(100):
        try:
            injected(url)
        except OSError:
            return
        time.sleep(0.1)
    pytest.fail(f"{url} still answers")


@pytest.mark.parametrize("end", [b"", b"\n", b"\r", b"\r\n", b"\0", b"--==0==--"])
def test_every_byte_of_a_file_arrives(bucket, tmp_path, end):
    content = bytes(range(256)) + end
    (tmp_path / "local").write_bytes(content)
    stores.put_file(tmp_path / "local", as_path(bucket) / "uploaded")
    stores.put(as_path(bucket) / "written", content)
    assert stores.get(as_path(bucket) / "uploaded") == content
    assert stores.get(as_path(bucket) / "written") == content


def test_folders_are_copied_and_removed_with_all_they_hold(bucket):
    folder = as_path(bucket)
    for name in ("a/x", "a/b/y", "ab/z"):
        stores.put(folder / name, name.encode())
    stores.copy_folder(folder / "a", folder / "c")
    stores.remove_folder(folder / "a")
    assert stores.names_in(folder) == ["ab", "c"]
    assert stores.get(folder / "c" / "b" / "y") == b"a/b/y"
    stores.remove_folder(folder / "a")  # nothing is there
