"""Advice on a training step, from the forecast of its compiled program."""

from __future__ import annotations

import os
from collections.abc import Iterator

from ml_collections import ConfigDict

from satmip_jax.planning.collectives import Transfer
from satmip_jax.planning.forecast import Forecast
from satmip_jax.planning.memory import HEADROOM

PREALLOCATED = 0.75  # share of a GPU's memory that JAX takes by default
SMALL_GROUPS = "--xla_gpu_all_reduce_combine_threshold_bytes=8388608"  # of gradients; XLA_FLAGS
RELEVANT = 0.005  # share of a step below which exposed transfers are not mentioned
TO_FIT = (
    "set config.parallel.micro_batch to encode fewer images at once, "
    "config.parallel.exchange=ring, config.parallel.fsdp to shard the state, or "
    "config.image.remat=True"
)


def advice(forecast: Forecast, config: ConfigDict) -> list[str]:
    """Return what to change in a config or its environment, most important first.

    Args:
        forecast: of the step.
        config: of the run.
    """
    if not forecast.is_compiled:
        return []
    return [*_memory(forecast, config), *_speed(forecast, config), *_exchange(forecast, config)]


def _memory(forecast: Forecast, config: ConfigDict) -> Iterator[str]:
    accelerator, needed = forecast.accelerator, forecast.needed or 0
    if not forecast.fits:
        return
    if accelerator.gpu and needed > PREALLOCATED * accelerator.memory:
        yield (
            f"JAX takes {PREALLOCATED:.0%} of a GPU's memory at the start, less than the step "
            "needs: set the environment variable XLA_PYTHON_CLIENT_MEM_FRACTION=0.95"
        )
    room = HEADROOM * accelerator.memory - forecast.arguments
    ratio = int(room / forecast.temporaries) if forecast.temporaries else 1
    if config.parallel.micro_batch and ratio >= 2:
        yield (
            f"memory allows micro-batches about {ratio} times as large: config.parallel.micro_batch"
        )


def _speed(forecast: Forecast, config: ConfigDict) -> Iterator[str]:
    gpu = forecast.accelerator.gpu is not None
    if config.dtype == "float32":
        yield (
            "the encoders compute in float32: config.dtype=bfloat16 halves their memory traffic "
            "and multiplies the peak of their products"
        )
    elif gpu and "fmha" not in forecast.program:
        yield (
            "attention is not fused: cuDNN's takes widths of a head that 8 divides, up to 128; its "
            "weights pass through memory"
        )
    if gpu:
        traffic = sum(cost.total for cost in forecast.costs if not cost.by_products)
        share = traffic / forecast.step
        if share > 0.5:
            yield (
                f"memory traffic limits {share:.0%} of the bound: an accelerator with more "
                "bandwidth or a wider encoder raise MFU, more FLOP/s do not"
            )
    module = forecast.module
    loops = [
        operation
        for computation in module.computations
        for operation in module.operations(computation)
        if operation.kind == "while" and module.trips(operation) is None
    ]
    if loops:
        yield f"{len(loops)} loop(s) of unknown length count as one round: the time is too low"


def _exchange(forecast: Forecast, config: ConfigDict) -> Iterator[str]:
    link = forecast.accelerator.link

    def exposed(transfers: list[Transfer]) -> float:
        return sum(transfer.times * transfer.exposed(link) for transfer in transfers)

    gathers = [t for t in forecast.transfers if t.part == "losses"]
    sums = [
        t for t in forecast.transfers if t.collective.kind == "all-reduce" and t.part != "losses"
    ]
    if config.parallel.exchange == "gather" and exposed(gathers) > RELEVANT * forecast.step:
        yield (
            f"no compute hides {exposed(gathers) * 1e3:.2f} ms of the embeddings' exchange: "
            "config.parallel.exchange=ring computes scores while they travel"
        )
    if exposed(sums) > RELEVANT * forecast.step:
        flag = (
            f"; XLA_FLAGS={SMALL_GROUPS} sends them in smaller groups, earlier"
            if forecast.accelerator.gpu and SMALL_GROUPS not in os.environ.get("XLA_FLAGS", "")
            else ""
        )
        yield (
            f"no compute hides {exposed(sums) * 1e3:.2f} ms of the sums over devices (gradients, "
            f"batch statistics): more images per device lower their share{flag}"
        )
    halved = sum(t.times * t.dtypes.get("bf16", 0) for t in sums)
    if halved > sum(t.times * t.bytes for t in sums) / 100:
        yield (
            f"{halved / 1e6:,.1f} MB of gradients per device are summed in bfloat16, which rounds "
            "each addition to 8 bits: config.parallel.gradient_dtype=float32"
        )
