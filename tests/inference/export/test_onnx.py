"""The image encoder as an ONNX program, run by ONNX Runtime."""

import importlib.util
import sys
from dataclasses import replace
from types import SimpleNamespace

import jax
import numpy as np
import pytest

import satmip_jax as sm
from satmip_jax.config.conversion import vary
from satmip_jax.evaluation.loading import load_model
from satmip_jax.inference.export.onnx_program import OnnxError, onnx_program
from satmip_jax.inference.export.run import ExportError, export
from tests.inference.export.test_run import PIXELS


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["run", "clip"])
def test_onnx_runtime_gives_the_same_features(
    kind, tiny_run, tiny_config, tmp_path, no_type_checks
):
    """For several images and for one."""
    pytest.importorskip("jax2onnx")
    runtime = pytest.importorskip("onnxruntime")
    run = tiny_run
    if kind == "clip":
        from satmip_jax.training.loop import train

        options = ("--config.image.pool=cls", "--config.image.pre_norm=True")
        options += ("--config.image.activation=quick_gelu", "--config.dtype=float32")
        run = tmp_path / "run"
        train(tiny_config("simclr", *options, "--config.optimizer.images=16"), run)
    files = export(run, tmp_path / "out", format="onnx")
    assert [file.name for file in files] == ["README.md", "image_encoder.onnx"]
    session = runtime.InferenceSession(files[1], providers=["CPUExecutionProvider"])
    expected = sm.load(run).embed_images(PIXELS)
    for count in (len(PIXELS), 1):
        (features,) = session.run(None, {"images": PIXELS[:count]})
        assert features.dtype == np.float32
        np.testing.assert_allclose(features, expected[:count], rtol=1e-4, atol=1e-4)


def test_the_program_computes_in_float32(tiny_run, monkeypatch, no_type_checks):
    """Whatever the run computes in."""
    programs = []

    def to_onnx(encode, inputs, **_):
        programs.append(str(jax.make_jaxpr(encode)(PIXELS)))
        return SimpleNamespace(SerializeToString=lambda: b"program")

    monkeypatch.setitem(sys.modules, "jax2onnx", SimpleNamespace(to_onnx=to_onnx))
    model = load_model(tiny_run)
    model = replace(model, config=vary(model.config, {"dtype": "bfloat16"}))
    assert onnx_program(model) == b"program"
    assert "f32[3,32]" in programs[0]
    assert "bf16" not in programs[0]


def test_without_the_extra_nothing_is_written(tiny_run, tmp_path):
    if importlib.util.find_spec("jax2onnx") is not None:
        pytest.skip("jax2onnx is installed")
    with pytest.raises(OnnxError, match=r'pip install "satmip-jax\[onnx\]"'):
        export(tiny_run, tmp_path / "out", format="onnx")
    assert not (tmp_path / "out").exists()
    with pytest.raises(ExportError, match="computes in float32: omit --half"):
        export(tiny_run, tmp_path / "out", format="onnx", half=True)
