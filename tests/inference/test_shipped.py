"""The models that come with the package: small, complete, and accepted by name."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

import satmip_jax as sm
from satmip_jax import pretrained
from satmip_jax.cli import cli
from satmip_jax.evaluation.loading import ModelError
from satmip_jax.geolocation.locate import stated_place
from satmip_jax.inference.embed.run import embed_files
from satmip_jax.inference.locate import LocateError
from satmip_jax.inference.search.query import QueryError
from satmip_jax.inference.search.run import search
from satmip_jax.metadata.record import Problems
from satmip_jax.sources.eurosat import EuroSAT

MAX_BYTES = 8_000_000


@pytest.mark.parametrize("name", pretrained.MODELS)
def test_a_shipped_model_is_small_and_has_a_card(name):
    folder = pretrained.folder(name)
    assert sum(file.stat().st_size for file in folder.iterdir()) < MAX_BYTES
    card = (folder / "README.md").read_text()
    assert "license: " in card
    assert "licence of the data" in card
    assert "knn5" in card  # its scores


@pytest.mark.parametrize("name", pretrained.MODELS)
def test_a_shipped_model_is_loaded_by_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = sm.load(name)
    assert model.model.step == model.model.planned  # of a complete training
    features = model.embed_images(
        [np.zeros((90, 70, 3), np.uint8), 255 * np.eye(32, dtype=np.uint8)]
    )
    assert np.isfinite(features).all()
    assert np.abs(features[0] - features[1]).max() > 0.1
    listed = CliRunner().invoke(cli, ["models"], env={"COLUMNS": "300"})
    assert name in listed.output
    exported = CliRunner().invoke(cli, ["export", name, "--out", "copy"])
    assert exported.exit_code == 0, exported.output
    np.testing.assert_array_equal(
        sm.load("copy").embed_images(255 * np.eye(32, dtype=np.uint8)), features[1:]
    )


def test_a_folder_comes_before_a_shipped_model_of_its_name(tiny_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = next(iter(pretrained.MODELS))
    Path(name).symlink_to(tiny_run)
    assert sm.load(name).model.name == "satmips mu/8"


def test_the_examples_are_placed_chips_that_the_shipped_model_reads(tmp_path):
    result = CliRunner().invoke(cli, ["models", "--examples", str(tmp_path / "chips")])
    assert result.exit_code == 0, result.output
    chips = sorted((tmp_path / "chips").glob("*.tif"))
    assert len(chips) == 20
    assert "Copernicus" in (tmp_path / "chips" / "README.md").read_text()
    assert stated_place(chips[0]) == pytest.approx((3.154172, 48.670768), abs=1e-5)
    features = sm.load("eurosat-satmips").embed_images(chips[:2], progress=False)
    assert np.isfinite(features).all()


def test_fields_that_the_training_never_saw_are_not_of_the_model(tmp_path):
    """EuroSAT's training chose the group Location, and no image of it states a UTM zone."""
    model = sm.load("eurosat-satmips")
    assert model.model.schema.fields["utm_zone"].count == 0
    assert model.fields == ("location", "country_code")
    card = (pretrained.folder("eurosat-satmips") / "README.md").read_text()
    assert "| metadata fields | location, country_code |" in card
    listed = CliRunner().invoke(cli, ["models"], env={"COLUMNS": "300"}).output
    assert "location, country_code" in listed
    chip = pretrained.EXAMPLES / "River_9.tif"
    embed_files(model, [chip], tmp_path / "e.parquet", progress=False, announce=str)
    with pytest.raises(QueryError, match="saw no utm_zone, only location, country_code; nothing"):
        search(tmp_path / "e.parquet", model=model, where="utm_zone=33T")


def test_locate_refuses_missing_files_before_it_encodes(tmp_path, monkeypatch):
    monkeypatch.setattr("satmip_jax.inference.locate.load_model", None)  # is not reached
    chip = str(pretrained.EXAMPLES / "River_9.tif")
    for paths, message in (
        ([chip, "nope.tif", "no.tif"], "nope.tif and 1 more: there is no such file"),
        ([str(tmp_path), chip], f"{tmp_path} is a folder: give its images"),
    ):
        result = CliRunner().invoke(cli, ["locate", *paths, "--model", "eurosat-satmips"])
        assert isinstance(result.exception, LocateError)
        assert message in str(result.exception)


def test_an_unknown_name_lists_the_models():
    with pytest.raises(ModelError, match=r"no model eurosat: .* or one of eurosat-satmips"):
        sm.load("eurosat")


def test_evaluation_by_name_leaves_the_package_alone(tiny_shards_dir, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = next(iter(pretrained.MODELS))
    before = {file: file.stat().st_mtime_ns for file in pretrained.folder(name).iterdir()}
    command = ["evaluate", "--model", name, "--data", str(tiny_shards_dir), "--features", "image"]
    command += ["--protocols", "knn5", "--block", "0"]
    for arguments in (command, [*command, "--out", "scores.json"]):
        result = CliRunner().invoke(cli, arguments, env={"COLUMNS": "300"})
        assert result.exit_code == 0, result.output
        assert "satmips nano/8" in result.output
    assert [file.name for file in Path().iterdir()] == ["scores.json"]
    assert before == {file: file.stat().st_mtime_ns for file in pretrained.folder(name).iterdir()}


@pytest.mark.slow
def test_the_shipped_model_knows_real_chips():
    """The nearest of 1,890 chips is of the right class more often than by colour statistics."""
    root = Path(os.environ.get("SATMIP_DATA", "../shared/data"), "eurosat")
    if not root.is_dir():
        pytest.skip("needs EuroSAT in $SATMIP_DATA/eurosat")
    source = EuroSAT([root])
    refs = source.refs()
    pixels, labels = {}, {}
    for split in ("train", "val"):
        examples = [source.read(ref, Problems()) for ref in refs if ref.split == split][::10]
        data = [np.frombuffer(example.image, np.uint8) for example in examples]
        pixels[split] = np.stack([cv2.imdecode(x, cv2.IMREAD_COLOR_RGB) for x in data])
        labels[split] = np.array([example.label for example in examples])

    def accuracy(features):
        mean, std = features["train"].mean(0), features["train"].std(0)
        unit = {split: (x - mean) / std for split, x in features.items()}
        unit = {k: x / np.linalg.norm(x, axis=1, keepdims=True) for k, x in unit.items()}
        nearest = np.argmax(unit["val"] @ unit["train"].T, axis=1)
        return np.mean(labels["train"][nearest] == labels["val"])

    model = sm.load("eurosat-satmips")
    ours = accuracy({k: model.embed_images(x, progress=False) for k, x in pixels.items()})
    colour = accuracy(
        {k: np.concatenate([x.mean((1, 2)), x.std((1, 2))], axis=1) for k, x in pixels.items()}
    )
    assert ours > colour + 0.05, (ours, colour)
