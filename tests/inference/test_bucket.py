"""A model in a bucket, as a run and exported: loaded, exported, calibrated, and its status."""

import json
import os

import numpy as np
import pytest
from click.testing import CliRunner

import satmip_jax as sm
from satmip_jax.cli import cli
from satmip_jax.inference.export.run import export
from satmip_jax.report.status import read_status
from satmip_jax.runtime import stores
from satmip_jax.runtime.paths import as_path
from tests.conftest import REPOSITORY, TINY

IMAGES = np.random.default_rng(3).integers(0, 256, (3, 40, 40, 3), np.uint8)


@pytest.fixture(scope="module")
def exported(tiny_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "model"
    export(tiny_run, folder)
    return folder


@pytest.fixture(scope="module")
def remote(tiny_run, exported, bucket_server, tmp_path_factory):
    """A folder of the bucket with the run and the exported model."""
    folder = as_path(bucket_server.folder("models"))
    stores.put_folder(tiny_run, folder / "run")
    for step in stores.names_in(folder / "run" / "checkpoints"):
        stores.put(folder / "run" / "checkpoints" / step / "commit_success.txt", b"")
    stores.put_folder(exported, folder / "exported")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SATMIP_CACHE", os.fspath(tmp_path_factory.mktemp("cache")))
        yield folder


def invoke(*arguments):
    result = CliRunner().invoke(cli, list(map(os.fspath, arguments)), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("name", ["run", "exported"])
def test_its_features_are_those_of_the_local_model(name, remote, tiny_run):
    expected = sm.load(tiny_run).embed_images(IMAGES, progress=False)
    model = sm.load(os.fspath(remote / name))
    np.testing.assert_array_equal(model.embed_images(IMAGES, progress=False), expected)


@pytest.mark.parametrize("name", ["run", "exported"])
def test_it_is_exported_like_the_local_model(name, remote, exported, tmp_path):
    invoke("export", remote / name, "--out", tmp_path / "copy")
    for file in ("model.safetensors", "config.json", "schema.json"):
        assert (tmp_path / "copy" / file).read_bytes() == (exported / file).read_bytes()


def test_a_new_export_replaces_the_copy_in_the_cache(remote, exported, tmp_path):
    folder = remote / "replaced"
    stores.put_folder(exported, folder)
    first = sm.load(os.fspath(folder))
    export(exported, tmp_path / "half", half=True)
    stores.put_folder(tmp_path / "half", folder)
    second = sm.load(os.fspath(folder))
    scale = [float(model.model.params["log_scale"]) for model in (first, second)]
    assert scale[1] == np.float32(np.float16(scale[0])) != scale[0]


def test_its_status_is_that_of_the_local_run(remote, tiny_run):
    (shown,) = json.loads(invoke("status", remote / "run", "--json"))
    local = read_status(tiny_run).record()
    assert shown == local | {"folder": os.fspath(remote / "run")}
    assert shown["state"] == "finished"


@pytest.mark.slow
def test_doctor_accepts_a_workdir_in_the_bucket(remote, tiny_shards_dir):
    config = ["--config", f"{REPOSITORY / 'configs/eurosat.py'}:satmips,cpu", *TINY]
    data = f"--config.data.dir={tiny_shards_dir}"
    output = invoke("doctor", *config, data, "--workdir", remote / "new", "--no-compile")
    assert "no problems found" in output
    assert os.fspath(remote / "new") in "".join(output.split())


@pytest.mark.slow
def test_the_commands_of_users_take_its_url(remote, tmp_path):
    import cv2

    cv2.imwrite(os.fspath(tmp_path / "a.png"), IMAGES[0])
    out = tmp_path / "a.parquet"
    invoke("embed", tmp_path / "a.png", "--model", remote / "exported", "--out", out)
    assert out.is_file()
    shown = invoke("locate", tmp_path / "a.png", "--model", remote / "exported", "--cell", "30")
    assert "a.png" in shown
