"""Accelerators that a step can be compiled for without having one: their numbers, and XLA's names.

Memory, memory bandwidth and the layout of GPUs are those of XLA's own target specifications
(`xla/backends/gpu/target_config/specs`). Their peaks, without sparsity, and links are those of the
data sheets. Numbers of TPUs are from cloud.google.com/tpu/docs. Their clocks, which turn cycles
into milliseconds, are inferred: the peak over the FLOPs of a cycle in XLA's estimate of a product.
A v5e's is certain; others may be wrong by a factor, the number of matrix units.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class GpuLayout:
    """What XLA's GPU compiler asks of a card beside its memory.

    Attributes:
        capability: major CUDA compute capability.
        cores: streaming multiprocessors.
        fpus: float32 units of each.
        clock: GHz.
        cache: bytes of the L2 cache.
        shared_memory: bytes of each multiprocessor; a block may use all but 1 KiB.
    """

    capability: int
    cores: int
    fpus: int
    clock: float
    cache: int
    shared_memory: int


@dataclass(frozen=True)
class Accelerator:
    """A kind of accelerator.

    Attributes:
        name: on the command line.
        kinds: names of it as JAX's `device_kind`.
        memory: bytes of one device.
        bandwidth: bytes per second to and from that memory.
        bf16: peak FLOP/s of products of bfloat16 or float16.
        tf32: peak FLOP/s of float32 products in TensorFloat-32, or for TPUs in bfloat16 passes.
        f32: peak FLOP/s of float32 products at full precision.
        link: bytes per second that a device can send within its host or slice.
        gpu: layout of a GPU; None for a TPU.
        clock: cycles per second of a TPU, in which XLA estimates; 0 for a GPU.
        dimensions: of a TPU's topology.
    """

    name: str
    kinds: tuple[str, ...]
    memory: int
    bandwidth: float
    bf16: float
    tf32: float
    f32: float
    link: float
    gpu: GpuLayout | None = None
    clock: float = 0.0
    dimensions: int = 0

    def peak(self, dtype: str) -> float:
        """Return the peak FLOP/s of products by `config.dtype`, at XLA's default precision."""
        return self.bf16 if dtype in ("bfloat16", "float16") else self.tf32


_AMPERE = GpuLayout(8, 108, 64, 1.41, 41_943_040, 167_936)
_HOPPER = GpuLayout(9, 132, 128, 1.98, 52_428_800, 233_472)
_HOPPER_PCIE = GpuLayout(9, 114, 128, 1.755, 52_428_800, 233_472)
_BLACKWELL = GpuLayout(10, 148, 128, 1.965, 132_644_864, 233_472)


def _gpu(
    name: str,
    kind: str,
    memory: int,
    gbps: float,
    bf16: float,
    f32: float,
    link: float,
    gpu: GpuLayout,
) -> Accelerator:
    """GB/s and TFLOP/s; a product in TensorFloat-32 runs at half the rate of bfloat16."""
    peaks = (bf16 * 1e12, bf16 / 2 * 1e12, f32 * 1e12)
    return Accelerator(name, (kind,), memory, gbps * 1e9, *peaks, link * 1e9, gpu=gpu)


def _tpu(
    name: str, kinds: tuple[str, ...], gib: int, gbps: float, bf16: float, link: float, ghz: float
) -> Accelerator:
    """GiB, GB/s, TFLOP/s, GB/s, GHz; by default, factors in float32 are rounded to bfloat16."""
    axes = 2 if name in ("v5e", "v6e") else 3
    peaks = (bf16 * 1e12,) * 2 + (bf16 / 6 * 1e12,)  # at full precision in six passes
    return Accelerator(
        name,
        kinds,
        gib * 2**30,
        gbps * 1e9,
        *peaks,
        link * 1e9,
        clock=ghz * 1e9,
        dimensions=axes,
    )


ACCELERATORS = {
    accelerator.name: accelerator
    for accelerator in (
        _gpu("a100", "NVIDIA A100-SXM4-80GB", 85_100_068_864, 2039.04, 312, 19.5, 300, _AMPERE),
        _gpu("a100-40gb", "NVIDIA A100-SXM4-40GB", 42_331_013_120, 1555.2, 312, 19.5, 300, _AMPERE),
        _gpu("h100", "NVIDIA H100 80GB HBM3", 84_942_979_072, 3352.32, 989, 67, 450, _HOPPER),
        _gpu("h100-pcie", "NVIDIA H100 PCIe", 84_942_979_072, 2039.04, 756, 51, 64, _HOPPER_PCIE),
        _gpu("h200", "NVIDIA H200", 151_397_597_184, 4800, 989, 67, 450, _HOPPER),
        _gpu("b200", "NVIDIA B200", 191_514_411_008, 7672.32, 2250, 75, 900, _BLACKWELL),
        _tpu("v4", ("TPU v4",), 32, 1228, 275, 300, 1.05),
        _tpu("v5e", ("TPU v5 lite", "TPU v5e"), 16, 819, 197, 200, 1.5),
        _tpu("v5p", ("TPU v5", "TPU v5p"), 95, 2765, 459, 600, 1.75),
        _tpu("v6e", ("TPU v6 lite", "TPU v6e"), 32, 1638, 918, 400, 1.75),
    )
}


def accelerator_of(device_kind: str) -> Accelerator | None:
    """Return the accelerator with a `jax.Device.device_kind`; None if it is not a known one.

    Example:
        >>> from satmip_jax.planning.accelerators import accelerator_of
        >>> accelerator_of("TPU v5 lite").name, accelerator_of("TPU v5p").name
        ('v5e', 'v5p')
    """
    return next((a for a in ACCELERATORS.values() if device_kind in a.kinds), None)


def target_config(accelerator: Accelerator) -> str:
    """Return XLA's `GpuTargetConfigProto` of a GPU as text."""
    gpu = accelerator.gpu
    assert gpu is not None
    return f"""
gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: {gpu.shared_memory}
  shared_memory_per_block_optin: {gpu.shared_memory - 1024}
  threads_per_core_limit: 2048
  core_count: {gpu.cores}
  fpus_per_core: {gpu.fpus}
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: {accelerator.bandwidth:.0f}
  l2_cache_size: {gpu.cache}
  clock_rate_ghz: {gpu.clock}
  device_memory_size: {accelerator.memory}
  cuda_compute_capability {{ major: {gpu.capability} }}
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 patch: 0 }}
device_description_str: "{accelerator.kinds[0]}"
"""
