"""`satmip bench embed`: rates of the command and its parts, and timm's features are ours."""

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

import satmip_jax as sm
from satmip_jax.bench import embed as bench_embed
from satmip_jax.bench.cli import bench
from tests.models.test_vit import import_timm

RNG = np.random.default_rng(2)


@pytest.fixture
def folder(tmp_path):
    for i in range(11):
        cv2.imwrite(str(tmp_path / f"{i:02d}.png"), RNG.integers(0, 256, (32, 32, 3), np.uint8))
    return tmp_path


def test_rates_of_the_command_and_its_parts(tiny_run, folder):
    model = sm.load(tiny_run, batch_size=8)
    measured = {m.variant: m for m in bench_embed.bench(model, [folder], rounds=1)}
    assert set(measured) == {
        "satmip embed",
        "reading alone",
        "encoding images alone",
        "encoding metadata alone",
    }
    assert all(m.value > 0 and m.facts["images"] == 11 for m in measured.values())


@pytest.mark.oracle
def test_timm_computes_the_same_features(tiny_run, folder):
    import_timm()
    words = ["embed", str(folder), "--model", str(tiny_run), "--torch", "--rounds", "1"]
    result = CliRunner().invoke(bench, words)
    assert result.exit_code == 0, result.output
    assert "speed relative to timm" in result.output
    from satmip_jax.bench.torch_embed import TimmLoop
    from satmip_jax.inference.embed.inputs import open_inputs

    theirs = TimmLoop(tiny_run, 4)(open_inputs([folder], {}))
    ours = sm.load(tiny_run, batch_size=8).embed_images(sorted(folder.glob("*.png")))
    np.testing.assert_allclose(theirs, ours, rtol=1e-3, atol=1e-4)
