"""Objects in a bucket: faults of the store, folders, and writes that appear whole."""

from contextlib import suppress

import pytest

from satmip_jax.runtime import stores
from satmip_jax.runtime.files import atomic_path, read_json, write_atomically
from satmip_jax.runtime.paths import as_path
from satmip_jax.runtime.stores import StoreError


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


def test_an_upload_of_another_size_is_an_error(bucket, bucket_server, tmp_path):
    (tmp_path / "a").write_bytes(b"x" * 100)
    bucket_server.torn.append(None)
    with pytest.raises(StoreError, match="50 of 100 bytes"):
        stores.put_file(tmp_path / "a", as_path(bucket) / "a")


def test_an_upload_that_arrives_changed_is_repeated(bucket, bucket_server):
    path = as_path(bucket) / "a"
    bucket_server.torn.append(None)
    stores.put(path, b"x" * 100)
    assert stores.get(path) == b"x" * 100
    bucket_server.torn.extend([None] * 2)
    with pytest.raises(StoreError, match="checksum"):
        stores.put(path, b"y" * 100)
    assert not bucket_server.torn


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
