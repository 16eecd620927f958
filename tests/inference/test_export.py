"""Exported models: read back, in timm, as StableHLO, and with broken files."""

import json
import struct

import jax
import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file, save_file

import satmip_jax as sm
from satmip_jax.checkpoints.safetensors_file import WeightsError
from satmip_jax.cli import cli
from satmip_jax.evaluation.results import Score, write_scores
from satmip_jax.inference.export import ExportError, export
from satmip_jax.inference.load import ModelError
from satmip_jax.training.loop import train
from tests.models.test_vit import import_timm

PIXELS = np.random.default_rng(3).integers(0, 256, (3, 32, 32, 3), np.uint8)
RECORDS = [{"location": [12, 48], "gsd": 0.5}, {"location": [-70, -33]}]


@pytest.fixture(scope="module")
def exported(tiny_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    export(tiny_run, folder)
    return folder


@pytest.fixture
def copy(exported, tmp_path):
    """A copy of the exported folder, to break."""
    for file in exported.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def test_an_export_gives_the_features_of_its_run(tiny_run, exported):
    run, model = sm.load(tiny_run), sm.load(exported)
    np.testing.assert_array_equal(model.embed_images(PIXELS), run.embed_images(PIXELS))
    assert np.isfinite(run.embed_metadata(RECORDS)).all()
    np.testing.assert_array_equal(model.embed_metadata(RECORDS), run.embed_metadata(RECORDS))
    assert repr(model) == repr(run)


def test_half_precision_takes_half_the_space(exported, tmp_path):
    export(exported, tmp_path / "half", half=True)  # an export can be exported again
    size = {
        name: (name / "model.safetensors").stat().st_size for name in (exported, tmp_path / "half")
    }
    assert size[tmp_path / "half"] < 0.6 * size[exported]
    full, half = (sm.load(folder).embed_images(PIXELS) for folder in size)
    assert 0 < np.abs(full - half).max() < 0.02


def test_values_beyond_float16_are_named(copy, tmp_path):
    tensors = load_file(copy / "model.safetensors")
    tensors["log_scale"] = np.array(1e6, np.float32)
    save_file(tensors, copy / "model.safetensors")
    with pytest.raises(WeightsError, match="log_scale has values that float16 cannot hold"):
        export(copy, tmp_path / "half", half=True)


def test_the_card_states_scores_of_this_checkpoint_and_no_path(tiny_run, exported, tmp_path):
    card = (exported / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: satmip-jax\ntags:\n")
    assert str(sm.load(tiny_run).model.config.data.dir) not in card
    assert str(tiny_run.parent) not in (exported / "config.json").read_text()
    name = sm.load(exported).model.name
    row = Score("toy", "val", name, "image", "knn5", "accuracy", 0.625, 24, step=4)
    other = Score("toy", "val", name, "image", "knn5", "macro_f1", 0.125, 24, step=3)
    source = tmp_path / "source"
    source.mkdir()
    for file in exported.iterdir():
        (source / file.name).write_bytes(file.read_bytes())
    (source / "evaluation.json").unlink(missing_ok=True)
    write_scores(source / "evaluation.json", [row, other])
    export(source, tmp_path / "again", licence="cc-by-4.0")
    card = (tmp_path / "again" / "README.md").read_text()
    assert "license: cc-by-4.0\n" in card
    assert "| toy | val | image | knn5 | accuracy | 62.5 | 24 |" in card
    assert "macro_f1" not in card


def test_the_command(exported, tmp_path):
    out = tmp_path / "out"
    arguments = ["export", str(exported), "--format", "timm", "--out", str(out)]
    run = CliRunner().invoke(cli, arguments)
    assert run.exit_code == 0, run.output
    assert f"{out}/model.safetensors " in run.output
    with pytest.raises(ExportError, match="not an empty folder"):
        export(exported, out)
    with pytest.raises(ModelError, match=r"has neither checkpoints/ .* or model.safetensors"):
        sm.load(tmp_path)


@pytest.mark.parametrize("change", ["truncated", "header", "missing", "shape", "dtype", "nan"])
def test_broken_weights_are_refused_with_what_is_wrong(copy, change):
    file = copy / "model.safetensors"
    tensors = load_file(file)
    name = "image_encoder.norm.scale"
    reason = {
        "truncated": "not an intact safetensors file",
        "header": "not an intact safetensors file",
        "missing": f"(?s)missing {name}.*unexpected 'evil'",
        "shape": rf"{name} has shape \[33\], expected \[32\]",
        "dtype": f"{name} is I64, expected F32 or F16",
        "nan": f"not finite in {name}",
    }[change]
    data = file.read_bytes()
    if change == "truncated":
        file.write_bytes(data[:-100])
    elif change == "header":  # of 2^40 bytes
        file.write_bytes(struct.pack("<Q", 1 << 40) + data[8:])
    else:
        scale = tensors.pop(name)
        tensors |= {
            "missing": {"evil": scale},
            "shape": {name: np.zeros(33, np.float32)},
            "dtype": {name: np.zeros(32, np.int64)},
            "nan": {name: np.full(32, np.nan, np.float32)},
        }[change]
        save_file(tensors, file)
    with pytest.raises(WeightsError, match=reason) as error:
        sm.load(copy)
    assert str(file) in str(error.value)


def test_a_config_cannot_ask_for_more_than_the_file_holds(copy):
    data = json.loads((copy / "config.json").read_text())
    data["config"]["image"]["encoder"] = "9984x4x4/8"  # 19 GB of parameters
    (copy / "config.json").write_text(json.dumps(data))
    with pytest.raises(WeightsError, match="expected \\[4, 9984, 29952\\]"):
        sm.load(copy)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "is not JSON"),
        ('{"architecture": "vit"}', "not the config of a whole model"),
        ('{"format": 1, "config": {"seed": "x"}}', "config.seed is 'x'"),
        ('{"format": 1, "config": {"image": {"encoder": "S/999"}}}', "config.json"),
    ],
)
def test_broken_configs_are_refused_with_what_is_wrong(copy, text, reason):
    (copy / "config.json").write_text(text)
    with pytest.raises(ModelError, match=reason):
        sm.load(copy)


def test_stablehlo_takes_any_number_of_images(tiny_run, tmp_path, no_type_checks):
    export(tiny_run, tmp_path / "out", format="stablehlo")
    program = jax.export.deserialize(
        bytearray((tmp_path / "out" / "image_encoder.stablehlo").read_bytes())
    )
    expected = sm.load(tiny_run).embed_images(PIXELS)
    np.testing.assert_allclose(program.call(PIXELS), expected, rtol=1e-3, atol=1e-3)
    assert program.call(PIXELS[:1]).shape == (1, 32)
    assert set(program.platforms) == {"cpu", "cuda", "tpu"}


@pytest.mark.oracle
@pytest.mark.parametrize("pool", ["cls", "mean"])
def test_timm_gives_the_same_features(tiny_config, tmp_path, pool):
    import_timm()
    import timm
    import torch

    options = (f"--config.image.pool={pool}", "--config.dtype=float32")
    train(tiny_config("satmips", *options, "--config.optimizer.images=32"), tmp_path / "run")
    export(tmp_path / "run", tmp_path / "timm", format="timm")
    theirs = timm.create_model(f"local-dir:{tmp_path / 'timm'}", pretrained=True).eval()
    state = load_file(tmp_path / "timm" / "model.safetensors")
    tensors = {name: torch.from_numpy(x) for name, x in state.items()}
    theirs.load_state_dict(tensors, strict=True)
    cfg = theirs.pretrained_cfg
    mean, std = (np.array(cfg[key], np.float32) for key in ("mean", "std"))
    x = ((PIXELS / np.float32(255) - mean) / std).transpose(0, 3, 1, 2)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(np.ascontiguousarray(x)))
    ours = sm.load(tmp_path / "run").embed_images(PIXELS)
    np.testing.assert_allclose(ours, expected.numpy(), rtol=1e-4, atol=1e-4)
