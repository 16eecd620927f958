"""`satmip calibrate` and `satmip locate` on a tiny run, from prepared data to an export."""

import json
import shutil

import cv2
import numpy as np
import pytest
import rasterio
from click.testing import CliRunner

import satmip_jax as sm
from satmip_jax.cli import cli
from satmip_jax.data.shard_dataset import ShardDataset
from satmip_jax.evaluation.loading import load_model
from satmip_jax.geolocation import calibrate as module
from satmip_jax.geolocation.calibration import Calibration
from satmip_jax.geolocation.locate import read_calibration
from satmip_jax.inference import locate as locate_module
from satmip_jax.inference.export.run import export
from satmip_jax.runtime import stores
from satmip_jax.runtime.paths import as_path
from satmip_jax.training.loop import train

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def workdir(tiny_config, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("located")
    train(
        tiny_config("satmips", "--config.metadata.fields=all", "--config.optimizer.images=32"),
        workdir,
    )
    return workdir


@pytest.fixture(scope="module")
def images(tiny_shards_dir, tmp_path_factory):
    """Three images, one of them a GeoTIFF that states Rome, and one that is damaged."""
    folder = tmp_path_factory.mktemp("images")
    dataset = ShardDataset(tiny_shards_dir, "val")
    for i in range(2):
        (folder / f"{i}.jpg").write_bytes(dataset[i]["image"])
    pixels = cv2.imdecode(np.frombuffer(dataset[2]["image"], np.uint8), cv2.IMREAD_COLOR)
    profile = {"driver": "GTiff", "height": 32, "width": 32, "count": 3, "dtype": "uint8"}
    place = {"crs": "EPSG:4326", "transform": rasterio.Affine(1e-3, 0, 12.5, 0, -1e-3, 41.9)}
    with rasterio.open(folder / "rome.tif", "w", **profile, **place, photometric="RGB") as file:
        file.write(np.moveaxis(pixels, 2, 0))
    (folder / "bad.jpg").write_text("no image")
    return folder


def run(*arguments):
    return CliRunner().invoke(cli, list(map(str, arguments)))


@pytest.fixture(scope="module")
def calibrated(workdir, tiny_shards_dir, tmp_path_factory):
    """A copy of the run with its calibration, and what the command printed."""
    copy = tmp_path_factory.mktemp("copy") / "run"
    shutil.copytree(workdir, copy)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MIN_IMAGES", 3)
        patch.setattr(module, "CELL", 5.0)
        patch.setattr(module, "BANDWIDTHS", (200.0,))
        patch.setattr(module, "MAX_IMAGES", 24)
        result = run("calibrate", copy, "--data", tiny_shards_dir, "--diagram", copy / "d.png")
    assert result.exit_code == 0, result.output
    assert (copy / "d.png").read_bytes().startswith(b"\x89PNG")
    return copy, result.output


def test_a_calibration_is_written_and_read_in_a_bucket(calibrated, bucket):
    folder, _ = calibrated
    remote = as_path(bucket)
    stores.put_folder(folder, remote)
    for step in stores.names_in(remote / "checkpoints"):
        stores.put(remote / "checkpoints" / step / "commit_success.txt", b"")
    known = read_calibration(load_model(remote))
    assert known == Calibration.load(folder / "locate.json")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(locate_module, "calibrate", lambda *_, **__: (known, []))
        path = locate_module.calibrate_model(bucket, "no data", "val")
    assert stores.get(path) == (folder / "locate.json").read_bytes()


def test_a_calibration_is_written_with_its_scores(calibrated):
    folder, output = calibrated
    known = Calibration.load(folder / "locate.json")
    assert f"wrote {folder / 'locate.json'}" in output
    methods = [row["method"] for row in known.scores]
    assert methods[:2] == ["this model, prior: train", "this model, prior: uniform"]
    assert any(method.startswith("kNN on colour statistics, k=") for method in methods)
    assert "month: this model" in methods
    assert "sensor: this model" in methods
    assert sum(count for *_, count in known.bins) == 64
    assert known.fields in ("location", "location+country_code")
    located = [row for row in known.scores if row.get("images")]
    assert all(row["images"] <= 14 for row in located)


def test_images_are_located_and_bad_ones_named(calibrated, images, tmp_path, monkeypatch, caplog):
    folder, _ = calibrated
    monkeypatch.setattr("satmip_jax.inference.locate.MAX_MAPS", 2)  # fewer than images
    paths = [images / name for name in ("0.jpg", "bad.jpg", "1.jpg", "rome.tif")]
    outputs = {name: tmp_path / name for name in ("a.json", "a.geojson", "a.png")}
    result = run(
        "locate", *paths, "--model", folder, "--cell", 5, "--top", 3, "--json", outputs["a.json"],
        "--geojson", outputs["a.geojson"], "--map", outputs["a.png"],
    )  # fmt: skip
    assert result.exit_code == 1, result.output
    assert "shows the first 2 images; 1 more are not drawn" in caplog.text
    known = Calibration.load(folder / "locate.json")
    assert f"calibrated on {known.images} images of {known.data}, 32 x" in result.output
    assert result.output.count("not calibrated for this image: pixels of 96 m") == 1  # of Rome
    found = json.loads(outputs["a.json"].read_text())
    assert [one["image"] for one in found] == [str(path) for path in paths if path.stem != "bad"]
    assert [one["calibrated"] for one in found] == [True, True, False]
    assert found[2]["stated_place"] == pytest.approx([12.516, 41.884], abs=1e-6)
    assert sum(found[0]["months"].values()) == pytest.approx(1)
    assert len(found[0]["places"]) == 3
    assert len(json.loads(outputs["a.geojson"].read_text())["features"]) > 3
    assert outputs["a.png"].stat().st_size > 10_000
    printed = run("locate", paths[0], "--model", folder, "--cell", 5, "--json")
    assert printed.exit_code == 0
    (one,) = json.loads(printed.stdout)
    assert one["places"][0]["latitude"] == found[0]["places"][0]["latitude"]


def test_an_export_carries_the_calibration(calibrated, tmp_path):
    folder, _ = calibrated
    export(folder, tmp_path / "out")
    assert "calibrated for `satmip locate`" in (tmp_path / "out" / "README.md").read_text()
    pixels = np.zeros((1, 32, 32, 3), np.uint8)
    exported, original = (
        sm.load(path).locate(pixels, cell=5.0)[0] for path in (tmp_path / "out", folder)
    )
    assert exported.search.calibrated
    np.testing.assert_allclose(exported.probabilities, original.probabilities, rtol=1e-4)


def test_requests_that_cannot_be_answered(workdir, tiny_shards_dir, images, tmp_path):
    result = run("locate", images / "0.jpg", "--model", workdir, "--region", "1,2,3")
    assert "--region 1,2,3: expected four numbers" in str(result.exception)
    result = run("locate", images / "0.jpg", "--model", workdir, "--map", tmp_path / "no" / "a.png")
    assert "there is no such folder" in str(result.exception)
    result = run("calibrate", workdir, "--data", tiny_shards_dir, "--split", "train")
    assert "the model was trained on 'train'" in str(result.exception)
    result = run("calibrate", workdir, "--data", tiny_shards_dir, "--out", tmp_path / "a.json")
    assert "a calibration needs 20 in each half of val" in str(result.exception)
