"""Accelerators, their topologies, and what the user reads if XLA cannot compile for them."""

import importlib.util

import pytest

from satmip_jax.planning import topology
from satmip_jax.planning.accelerators import ACCELERATORS, accelerator_of, target_config
from satmip_jax.planning.flops import peak_flops
from satmip_jax.planning.topology import AcceleratorError, gpu_topology, topology_devices


def test_devices_of_known_kinds_have_a_peak():
    assert accelerator_of("NVIDIA H100 80GB HBM3").name == "h100"
    assert accelerator_of("NVIDIA H100 80GB HBM3 MIG 1g.10gb") is None
    assert peak_flops("TPU v5 lite", "bfloat16") == 197e12
    assert peak_flops("TPU v5 lite", "float32") is None
    kinds = [kind for accelerator in ACCELERATORS.values() for kind in accelerator.kinds]
    assert len(kinds) == len(set(kinds))


def test_the_layout_of_a_card_is_that_of_xlas_specification():
    """Numbers of openxla/xla, xla/backends/gpu/target_config/specs/b200.txtpb."""
    text = target_config(ACCELERATORS["b200"])
    for line in (
        "core_count: 148",
        "memory_bandwidth: 7672320000000",
        "l2_cache_size: 132644864",
        "clock_rate_ghz: 1.965",
        "device_memory_size: 191514411008",
        "shared_memory_per_block_optin: 232448",
        "cuda_compute_capability { major: 10 }",
    ):
        assert line in text


@pytest.mark.parametrize(
    ("sizes", "text"), [([], "1x1x1"), ([4], "1x1x4"), ([256], "1x32x8"), ([2, 4, 8], "2x4x8")]
)
def test_gpus_fill_their_hosts(sizes, text):
    assert gpu_topology(sizes) == text


@pytest.mark.parametrize("sizes", [[12], [4, 4]])
def test_other_shapes_of_gpus_are_rejected(sizes):
    with pytest.raises(AcceleratorError, match=r"^--topology .* GPUs per host, such as 1x"):
        gpu_topology(sizes)


@pytest.mark.parametrize(("name", "extra"), [("h100", "compile-gpu"), ("v5e", "compile-tpu")])
def test_a_missing_compiler_is_named_with_its_command(monkeypatch, name, extra):
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: None)
    with pytest.raises(AcceleratorError) as caught:
        topology_devices(ACCELERATORS[name])
    assert str(caught.value) == (
        f"XLA's compiler for {name} is not installed: pip install 'satmip-jax[{extra}]'"
    )


@pytest.mark.parametrize("text", ["4by4", "0", "4x0", "-8"])
def test_a_topology_is_made_of_numbers(monkeypatch, text):
    monkeypatch.setattr(topology, "_require_compiler", lambda accelerator: None)
    with pytest.raises(AcceleratorError, match="shape of a slice of TPUs, such as 4x4"):
        topology_devices(ACCELERATORS["v5e"], text)
