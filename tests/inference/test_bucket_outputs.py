"""Outputs in a bucket: those of a local run, resumed like them, and nothing is left behind."""

import json
import os

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

import satmip_jax as sm
from satmip_jax.cli import cli
from satmip_jax.inference.embed import run as module
from satmip_jax.inference.embed.parts import EmbedError
from satmip_jax.inference.embed.run import embed_files
from satmip_jax.inference.embed.table import EmbeddingTable, EmbeddingTableError
from satmip_jax.inference.export.run import ExportError, export
from satmip_jax.inference.search.run import search
from satmip_jax.runtime import stores
from satmip_jax.runtime.paths import as_path
from satmip_jax.runtime.store_lock import StoreLock
from satmip_jax.runtime.stores import StoreError

PIXELS = np.random.default_rng(4).integers(0, 256, (20, 40, 40, 3), np.uint8)


@pytest.fixture(scope="module")
def model(tiny_run):
    return sm.load(tiny_run, batch_size=8)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for i, pixels in enumerate(PIXELS):
        cv2.imwrite(os.fspath(folder / f"{i:02d}.png"), pixels)
    (folder / "20.png").write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def local(model, images, tmp_path_factory):
    """The file of embeddings on the disk."""
    out = tmp_path_factory.mktemp("embedded") / "e.parquet"
    embed(model, images, out)
    return EmbeddingTable.open(out)


@pytest.fixture
def remote(bucket, tmp_path, monkeypatch):
    monkeypatch.setenv("SATMIP_CACHE", os.fspath(tmp_path / "cache"))
    return as_path(bucket)


def embed(model, images, out):
    return embed_files(model, [images], out, progress=False, announce=lambda _: None)


def assert_equal(table, expected):
    assert table.count == expected.count == 20
    np.testing.assert_array_equal(table.images(), expected.images())
    np.testing.assert_array_equal(table.metadata(), expected.metadata())
    assert table.rows(range(20)) == expected.rows(range(20))


@pytest.mark.parametrize("damage", [None, b"PAR1 and more"])
def test_an_interrupted_embedding_resumes(model, images, local, remote, monkeypatch, damage):
    out = remote / "e.parquet"
    monkeypatch.setattr(module, "PART_SECONDS", 0.0)  # a part per batch
    encode, done = module._encode, []

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "_finish", interrupt)
        with pytest.raises(KeyboardInterrupt):
            embed(model, images, out)
    names = stores.names_in(remote / "e.parquet.parts")
    parts = [name for name in names if name.endswith(".parquet")]
    assert len(parts) == 3
    assert stores.names_in(remote) == ["e.parquet.parts"]
    if damage:
        stores.put(remote / "e.parquet.parts" / parts[1], damage)
    monkeypatch.setattr(module, "_encode", lambda *a: done.append(a) or encode(*a))
    report = embed(model, images, out)
    assert (report.resumed, len(done)) == ((8, 2) if damage else (21, 0))
    ((reason, named),) = report.left_out.items()
    assert named == (1, [os.fspath(images / "20.png")])
    assert_equal(EmbeddingTable.open(out), local)
    assert reason.startswith("not a JPEG")
    assert f"{images / '20.png'}" in stores.get(report.left_out_file).decode()
    assert stores.names_in(remote) == ["e.left_out.csv", "e.parquet"]

    done.clear()
    again = embed(model, images, out)
    assert (again.rows, again.left_out, done) == (20, report.left_out, [])
    with pytest.raises(EmbedError, match="holds embeddings of other inputs"):
        embed(model, images / "00.png", out)


def test_two_processes_do_not_write_one_file(model, images, remote):
    lock = StoreLock(remote / "e.parquet.parts" / "lock")
    lock.acquire()
    with lock, pytest.raises(EmbedError, match=f"process {os.getpid()} on .* is writing it"):
        embed(model, images, remote / "e.parquet")
    assert embed(model, images, remote / "e.parquet").rows == 20


def test_inputs_that_cannot_be_used_leave_nothing_behind(model, images, remote):
    with pytest.raises(EmbedError, match="none of the 1 inputs can be used"):
        embed(model, images / "20.png", remote / "e.parquet")
    assert [name for name in stores.names_in(remote) if "parts" in name] == []


def test_a_bucket_that_is_not_there_is_named_before_anything_is_encoded(
    model, images, remote, monkeypatch
):
    monkeypatch.setattr(module, "_encode", None)
    with pytest.raises(StoreError, match="there is no bucket gs://nowhere"):
        embed(model, images, "gs://nowhere/e.parquet")
    with pytest.raises(StoreError, match="there is no bucket gs://nowhere"):
        search("gs://nowhere/e.parquet", ids=["a"])
    with pytest.raises(FileNotFoundError):
        search(remote / "e.parquet", ids=["a"])


def test_a_search_there_finds_what_one_on_the_disk_finds(local, remote):
    out = remote / "e.parquet"
    stores.put_file(local.path, out)
    name = local.rows([3])[0]["id"]
    expected = search(local.path, ids=[name], count=5)
    found = search(out, ids=[name], count=5)
    assert [(hit.row, hit.score) for hit in found.hits] == [
        (hit.row, hit.score) for hit in expected.hits
    ]
    arguments = ["search", out, "--id", name, "--count", "5", "--out", remote / "hits.json"]
    arguments += ["--page", remote / "hits.html"]
    result = CliRunner().invoke(cli, list(map(os.fspath, arguments)), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    written = json.loads(stores.get(remote / "hits.json"))
    assert written["embeddings"] == os.fspath(out)
    assert [hit["id"] for hit in written["hits"]] == [hit.values["id"] for hit in expected.hits]
    assert name in stores.get(remote / "hits.html").decode()

    stores.put(out, b"PAR1" + bytes(100))  # replaced: the copy in the cache is not used
    with pytest.raises(EmbeddingTableError, match=f"{out} is damaged"):
        EmbeddingTable.open(out)
    stores.put(out, b"other")
    with pytest.raises(EmbeddingTableError, match=f"{out} is no Parquet file"):
        EmbeddingTable.open(out)


def test_an_exported_model_is_that_of_the_disk(tiny_run, model, remote, tmp_path):
    expected = export(tiny_run, tmp_path / "m")
    files = export(tiny_run, remote / "m")
    assert [file.name for file in files] == [file.name for file in expected]
    for file, other in zip(files, expected, strict=True):
        assert stores.get(file) == other.read_bytes()
    np.testing.assert_array_equal(
        sm.load(os.fspath(remote / "m"), batch_size=8).embed_images(PIXELS, progress=False),
        model.embed_images(PIXELS, progress=False),
    )
    with pytest.raises(ExportError, match="is not an empty folder"):
        export(tiny_run, remote / "m")
