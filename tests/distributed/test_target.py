"""Devices that a program is compiled for."""

from dataclasses import replace
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from satmip_jax.distributed.target import Target


@pytest.mark.parametrize(
    ("platform", "capability", "expected"),
    [
        ("cpu", None, Target("cpu")),
        ("tpu", None, Target("tpu")),
        ("gpu", "7.5", Target("gpu")),
        ("gpu", "8.0", Target("gpu", has_cudnn_attention=True)),
        ("gpu", "10.0", Target("gpu", has_cudnn_attention=True)),
        ("gpu", "gfx942", Target("gpu")),
    ],
)
def test_the_target_of_a_device(platform, capability, expected):
    device = SimpleNamespace(platform=platform)
    if capability:
        device.compute_capability = capability
    mesh = SimpleNamespace(devices=np.array([device]))
    assert replace(Target.of(mesh), mesh=None) == expected
    assert Target.of(mesh).mesh is mesh


def test_views_are_halved_only_where_the_encoder_rounds_them_anyway():
    assert Target("gpu").view_dtype("bfloat16") == jnp.float16
    assert Target("gpu").view_dtype("float32") == jnp.float32
    assert Target("tpu").view_dtype("bfloat16") == jnp.float32
    assert Target("cpu").view_dtype("bfloat16") == jnp.float32
