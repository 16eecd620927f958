"""Runs that begin with pretrained weights: from files and models; resumed without them."""

import json
import shutil
from dataclasses import replace

import jax
import numpy as np
import pytest

from satmip_jax.checkpoints.safetensors_file import WeightsError
from satmip_jax.config.conversion import from_json
from satmip_jax.distributed.sharding import make_mesh
from satmip_jax.errors import ConfigError
from satmip_jax.evaluation.loading import load_model
from satmip_jax.inference.export.run import export
from satmip_jax.training.loop import train
from satmip_jax.training.step import build_program
from satmip_jax.training.warm_start import read_weights, start_from
from tests.conftest import load_state


def stored(workdir):
    return from_json((workdir / "config.json").read_text())


def initial(source, config, dataset, workdir):
    """The state that a run begins with, and its config."""
    config, weights = read_weights(source, config, workdir)
    mesh = make_mesh(fsdp=config.parallel.fsdp)
    program = build_program(config, dataset.schema, len(dataset), mesh)
    workdir.mkdir()
    state = program.init()
    before = jax.device_get(state.params)
    return config, before, start_from(weights, program, state, workdir)


@pytest.mark.parametrize("kind", ["workdir", "safetensors", "timm"])
def test_a_run_begins_with_a_models_encoder(kind, tiny_run, tiny_config, tiny_shards, tmp_path):
    """Of a run, of an exported folder, and of one for timm; its other parameters are drawn."""
    source = tiny_run
    if kind != "workdir":
        source = tmp_path / "exported"
        export(tiny_run, source, format=kind)
    config = tiny_config("satmips", "--config.seed=5", "--config.parallel.fsdp=2")
    config, drawn, state = initial(source, config, tiny_shards, tmp_path / "run")
    want, got = load_model(tiny_run).params, state.params
    jax.tree.map(np.testing.assert_array_equal, want["image_encoder"], got["image_encoder"])
    for name in drawn.keys() - {"image_encoder"}:
        jax.tree.map(np.testing.assert_array_equal, drawn[name], got[name])
    kernel = got["image_encoder"]["encoder"]["blocks"]["mlp"]["fc1"]["kernel"]
    assert kernel.addressable_shards[0].data.size == kernel.size // 2  # fsdp
    record = json.loads((tmp_path / "run" / "initialization.json").read_text())
    assert config.image.init == f"{record['family']} sha256:{record['sha256']}"
    assert record["family"] == ("timm" if kind == "timm" else "satmip")
    assert record["mean"] == pytest.approx(tiny_shards.schema.image_mean)
    assert record["notes"] == []


def test_pixels_are_those_that_the_weights_expect(tiny_run, tiny_config, tiny_shards, tmp_path):
    """The difference of normalizations is folded into the first layer."""
    config, weights = read_weights(tiny_run, tiny_config("satmips"), tmp_path)
    mean, std = np.array([0.6, 0.2, 0.4]), np.array([0.1, 0.3, 0.2])
    weights = replace(weights, statistics=(tuple(mean), tuple(std)))
    program = build_program(config, tiny_shards.schema, 64, make_mesh(jax.devices()[:1]))
    state = start_from(weights, program, program.init(), tmp_path)
    patch = np.random.default_rng(0).uniform(size=(8, 8, 3))
    schema, both = tiny_shards.schema, []
    for params, (center, scale) in (
        (load_model(tiny_run).params, (mean, std)),
        (state.params, (np.array(schema.image_mean), np.array(schema.image_std))),
    ):
        first = jax.device_get(params["image_encoder"]["patch_embed"])
        both.append(((patch - center) / scale).ravel() @ first["kernel"] + first["bias"])
    np.testing.assert_allclose(*both, rtol=1e-3, atol=1e-5)


def test_positions_and_sizes(tiny_run, tiny_config, tiny_shards, tmp_path):
    """Another image size interpolates positions; another encoder is refused by its options."""
    larger = tiny_config("satmips", "--config.image.size=48")
    _, _, state = initial(tiny_run, larger, tiny_shards, tmp_path / "run")
    assert state.params["image_encoder"]["position"].shape == (36, 32)
    other = tiny_config("satmips", "--config.image.encoder=64x2x2/8")
    with pytest.raises(WeightsError, match=r"satmips mu/8 at step 4 .*give --config.*encoder=mu/8"):
        read_weights(tiny_run, other, tmp_path / "other")
    with pytest.raises(WeightsError, match=r"no class token: give --config.image.pool=mean"):
        read_weights(tiny_run, tiny_config("satmips", "--config.image.pool=cls"), tmp_path)


def test_the_name_of_weights_needs_the_weights(tiny_config, tmp_path):
    config = tiny_config("satmips", "--config.image.init=timm")
    with pytest.raises(ConfigError, match="set by --init FILE; give that"):
        train(config, tmp_path / "run")


def test_a_run_that_began_without_weights_does_not_take_them(tiny_run, tiny_config, tmp_path):
    workdir = shutil.copytree(tiny_run, tmp_path / "run")
    with pytest.raises(ConfigError, match=r"image.init: '' -> 'satmip sha256:"):
        train(tiny_config("satmips"), workdir, init=tiny_run)


@pytest.mark.slow
def test_a_run_resumes_without_the_weights(tiny_run, tiny_config, tmp_path):
    """Killed after step 2, with the file gone; another file is refused."""
    files = [tmp_path / name for name in ("first", "second")]
    for file, half in zip(files, (False, True), strict=True):
        export(tiny_run, file, format="timm", half=half)
    config, workdir = tiny_config("satmips", "--config.seed=5"), tmp_path / "run"
    train(config, workdir, init=files[0])
    name = stored(workdir).image.init
    assert name.startswith("timm sha256:")
    assert load_model(workdir).config.image.init == name
    done = load_state(workdir)
    scratch = tmp_path / "scratch"
    train(config, scratch)
    kernel = ("image_encoder", "patch_embed", "kernel")
    both = [state.params[kernel[0]][kernel[1]][kernel[2]] for state in (done, load_state(scratch))]
    assert np.abs(both[0] - both[1]).max() > 0.01

    shutil.rmtree(workdir / "checkpoints" / "4")
    with pytest.raises(ConfigError, match=r"image.init: 'timm sha256:.*' -> 'timm sha256:"):
        train(config, workdir, init=files[1])
    shutil.rmtree(files[0])
    for source in (files[0], None):
        train(config, workdir, init=source)
        jax.tree.map(np.testing.assert_array_equal, done, load_state(workdir))
        shutil.rmtree(workdir / "checkpoints" / "4")
    assert stored(workdir).image.init == name
    assert (workdir / "initialization.json").is_file()
