"""Devices of an accelerator that is not here, and XLA's compiler for it."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Sequence
from typing import Any

import jax
from jax.experimental import topologies

from satmip_jax.errors import SatmipError
from satmip_jax.planning.accelerators import Accelerator, target_config

# libtpu asks for the surroundings of a TPU, locks it, and warns where there is none.
_LIBTPU = {
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-1",
    "TPU_STDERR_LOG_LEVEL": "3",
}
GPUS_PER_HOST = 8  # of the machines that a topology such as "64" is divided into


class AcceleratorError(SatmipError, ValueError):
    """An accelerator or topology that a step cannot be compiled for."""


def topology_devices(
    accelerator: Accelerator, topology: str = "", slices: int = 1
) -> Sequence[jax.Device]:
    """Return devices to compile for, none of which is here.

    Args:
        accelerator: their kind.
        topology: of GPUs their number, or slices x hosts x GPUs per host; of TPUs the shape of the
            slice, such as "4x4". "" for one device.
        slices: of TPUs, each of this topology.

    Raises:
        AcceleratorError: the compiler is not installed, or knows no such topology.
    """
    _require_compiler(accelerator)
    sizes = topology_sizes(topology)
    shape = gpu_topology(sizes) if accelerator.gpu else ""
    try:
        if accelerator.gpu:
            return topologies.get_topology_desc(
                platform="cuda",
                topology_name="",
                topology=shape,
                target_config=target_config(accelerator),
            ).devices
        for name, value in _LIBTPU.items():
            os.environ.setdefault(name, value)
        sizes = sizes or [1] * accelerator.dimensions
        options: dict[str, Any] = {}
        if accelerator.name == "v4":
            options["chip_config_name"] = "megacore"  # one device per chip, as in training
        if set(sizes) == {1}:
            options["chips_per_host_bounds"] = [1, 1, 1]
        if slices > 1:
            options["num_slices"] = slices
        return topologies.get_topology_desc(
            platform="tpu",
            topology_name=f"{accelerator.name}:{'x'.join(map(str, sizes))}",
            **options,
        ).devices
    except (jax.errors.JaxRuntimeError, ValueError, NotImplementedError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise AcceleratorError(
            f"XLA cannot compile for {accelerator.name} in topology {topology or '1'!r}: {reason}"
        ) from error


def topology_sizes(topology: str) -> list[int]:
    """Return the numbers of a topology such as "4x4"; none of "".

    Raises:
        AcceleratorError: it is not made of positive numbers.
    """
    sizes = [int(n) for n in topology.split("x")] if re.fullmatch(r"\d+(x\d+)*", topology) else []
    if topology and (not sizes or min(sizes) < 1):
        raise AcceleratorError(
            f"--topology {topology!r}: give the number of GPUs, such as 8, or the shape of a slice "
            "of TPUs, such as 4x4"
        )
    return sizes


def gpu_topology(sizes: Sequence[int]) -> str:
    """Return XLA's topology of GPUs: slices x hosts x GPUs per host.

    Args:
        sizes: the number of GPUs, or that shape; empty for one.

    Raises:
        AcceleratorError: GPUs that do not fill their hosts, or another shape.

    Example:
        >>> from satmip_jax.planning.topology import gpu_topology
        >>> gpu_topology([8]), gpu_topology([64])
        ('1x1x8', '1x8x8')
    """
    if len(sizes) == 3:
        return "x".join(map(str, sizes))
    if len(sizes) > 1:
        raise AcceleratorError(
            f"--topology {'x'.join(map(str, sizes))}: give the number of GPUs, or slices x hosts x "
            "GPUs per host, such as 1x8x8"
        )
    number = sizes[0] if sizes else 1
    if number <= GPUS_PER_HOST:
        return f"1x1x{number}"
    if number % GPUS_PER_HOST:
        raise AcceleratorError(
            f"--topology {number}: a host has {GPUS_PER_HOST} GPUs; give a multiple of it, or "
            f"slices x hosts x GPUs per host, such as 1x{number}x1"
        )
    return f"1x{number // GPUS_PER_HOST}x{GPUS_PER_HOST}"


def compiler_options(accelerator: Accelerator) -> dict[str, Any]:
    """Return XLA's options for an accelerator that is not here.

    Without a card nothing can be timed, and untimed, XLA gives all products to Triton. cuBLASLt,
    which timing mostly chooses, also adds bias and residual in the same kernel.
    """
    return {"xla_gpu_enable_triton_gemm": False} if accelerator.gpu else {}


def _require_compiler(accelerator: Accelerator) -> None:
    """Raise an AcceleratorError if XLA's compiler for the accelerator is not installed."""
    extra = "compile-gpu" if accelerator.gpu else "compile-tpu"
    modules = ("jax_cuda13_plugin", "jax_cuda12_plugin") if accelerator.gpu else ("libtpu",)
    if not any(importlib.util.find_spec(module) for module in modules):
        raise AcceleratorError(
            f"XLA's compiler for {accelerator.name} is not installed: "
            f"pip install 'satmip-jax[{extra}]'"
        )
