"""`satmip bench step`: derived rates, and a PyTorch step that does the same work."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from click.testing import CliRunner

from satmip_jax.bench import step as bench_step
from satmip_jax.bench.cli import bench
from satmip_jax.distributed.sharding import make_mesh
from satmip_jax.models import build_towers
from satmip_jax.objectives import build_method
from satmip_jax.planning.flops import step_flops
from satmip_jax.planning.memory import schema_of
from satmip_jax.training.step import build_program
from tests.conftest import REPOSITORY, forward_of_views
from tests.models.test_vit import from_timm, import_timm


def test_rates_are_derived_from_the_step_time(tiny_config, tiny_shards):
    configs = {name: tiny_config(name) for name in ("simclr", "satmip")}
    for config in configs.values():
        config.data.workers = 0
    measurements = bench_step.bench(configs, rounds=2, steps=1)
    got = {(m.variant, m.metric): m for m in measurements}
    for name, config in configs.items():
        program = build_program(config, tiny_shards.schema, len(tiny_shards), make_mesh())
        seconds = got[name, "step time"]
        assert 0 < seconds.low <= seconds.value <= seconds.high
        assert seconds.rounds == 2
        images = got[name, "image throughput"]
        assert images.low == pytest.approx(16 / seconds.high)
        assert images.high == pytest.approx(16 / seconds.low)
        views = 2 if name == "simclr" else 1
        assert got[name, "view throughput"].low == pytest.approx(views * images.low)
        assert 0 <= got[name, "input stall"].value <= 100
        assert got[name, "compiled memory"].value > 0
        flops = got[name, "model FLOP/s"].high * 1e12 * seconds.low
        parts = step_flops(program)
        assert flops == pytest.approx(sum(parts.values()) - parts["views"])
    ratio = got["satmip", "compiled memory"].value / got["simclr", "compiled memory"].value
    assert got["satmip", "compiled memory / simclr"].value == pytest.approx(ratio)
    assert ("simclr", "step time / simclr") not in got
    assert got["matmul", "achieved"].value > 0


def test_unknown_methods_are_named():
    config = str(REPOSITORY / "configs" / "eurosat.py")
    words = ["step", "--config", config, "--methods", "simclr,satmpi", "--config.data.dir="]
    result = CliRunner().invoke(bench, words)
    assert result.exit_code == 1
    assert "no recipe for satmpi" in result.output


def test_without_data_every_field_is_present(tiny_config):
    config = tiny_config("satmips", "--config.data.dir=")
    schema, examples = schema_of(config, None)
    program = build_program(config, schema, examples, make_mesh())
    batch = bench_step.noise(program)
    assert np.asarray(batch["metadata"]["present"]).all()
    assert np.asarray(batch["image"]).std() > 50
    _, metrics = program.step(program.init(), batch)
    assert np.isfinite(float(metrics["loss"]))


@pytest.mark.oracle
def test_pytorch_step_has_the_same_model_and_loss(tiny_config):
    import_timm()
    import torch

    from satmip_jax.bench.torch_step import TorchStep

    config = tiny_config("simclr")
    peer = TorchStep(config, compiled=False)
    views = np.random.default_rng(0).standard_normal((2, 16, 32, 32, 3), np.float32)
    stacked = torch.from_numpy(views.reshape(32, 32, 32, 3).transpose(0, 3, 1, 2).copy())
    theirs = peer.loss(stacked).item()

    def linear(layer):
        return {name: p.detach().numpy().T for name, p in layer.named_parameters()}

    layers = list(peer.projector)
    head = {}
    for i, layer in enumerate(layer for layer in layers if isinstance(layer, torch.nn.Linear)):
        head[f"linear{i + 1}"] = {
            {"weight": "kernel"}.get(name, name): value for name, value in linear(layer).items()
        }
    norms = [layer for layer in layers if isinstance(layer, torch.nn.BatchNorm1d)]
    for i, norm in enumerate(norms):
        ones = {"weight": "scale", "bias": "bias"}
        head[f"norm{i + 1}"] = {ones[n]: p.detach().numpy() for n, p in norm.named_parameters()}
    params = {"image_encoder": from_timm(peer.encoder.state_dict(), 1), "heads_image_ssl": head}
    params = jax.tree.map(jnp.asarray, params)
    schema, _ = schema_of(config, None)
    method = build_method(config)
    towers = build_towers(config, schema, method)
    batch = {"image": jnp.asarray(views.swapaxes(0, 1))}
    forward = forward_of_views(towers, params, make_mesh(), schema, 16)
    losses, _ = jax.jit(lambda batch: method.losses(forward, batch))(batch)
    np.testing.assert_allclose(losses["simclr"], theirs, rtol=1e-4)
    for _ in range(5):
        peer.step(stacked)
    assert peer.loss(stacked).item() < theirs  # it learns
