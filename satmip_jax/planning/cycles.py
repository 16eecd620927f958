"""Estimated time of a TPU step: the cycles that XLA's own cost model gives each fusion.

They are written in the compiled program. XLA chooses between programs by them; they are not
measured. A Pallas kernel has none: its time is bounded from below by the bytes of its operands and
results, and by the FLOPs that it declares.
"""

from __future__ import annotations

import json
import re

from satmip_jax.planning.accelerators import Accelerator
from satmip_jax.planning.costs import Cost, shape_of
from satmip_jax.planning.hlo import Module, Operation

_CYCLES = r'"estimated_cycles":"(\d+)"'
PALLAS = "tpu_custom_call"


def cycle_costs(module: Module, accelerator: Accelerator) -> list[Cost]:
    """Return the cost of every operation that XLA gives an estimate, and of Pallas kernels.

    Args:
        module: the program of one device.
        accelerator: a TPU.
    """
    costs = []
    for operation, times in module.executions():
        cycles = int(operation.attribute(_CYCLES) or 0)
        seconds, size, flops = cycles / accelerator.clock, 0, 0
        if is_pallas(operation):
            size = operation.bytes + sum(operand.bytes for operand in module.inputs(operation))
            flops = _declared_flops(operation)
            seconds = max(size / accelerator.bandwidth, flops / accelerator.bf16)
        if seconds:
            costs.append(
                Cost(
                    name=operation.name,
                    op_name=operation.op_name,
                    shape=shape_of(operation),
                    seconds=seconds,
                    times=times,
                    bytes=size,
                    flops=flops,
                    cycles=cycles,
                    by_products=bool(flops) and flops / accelerator.bf16 >= seconds,
                )
            )
    return costs


def is_pallas(operation: Operation) -> bool:
    """Whether an operation is a Pallas kernel, which has no estimate."""
    return operation.kind == "custom-call" and PALLAS in operation.attributes


def _declared_flops(call: Operation) -> int:
    """Return the FLOPs in the `cost_estimate` of a Pallas kernel, 0 without one."""
    found = re.search(r'"flops":("?\d+"?)', call.attributes)
    return int(json.loads(found[1])) if found else 0
