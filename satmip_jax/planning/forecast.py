"""Forecast of a training step on an accelerator that is not here, from its compiled program."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import jax

from satmip_jax.planning import memory
from satmip_jax.planning.accelerators import Accelerator
from satmip_jax.planning.collectives import Transfer, transfers
from satmip_jax.planning.costs import Cost, by_part, merged
from satmip_jax.planning.cycles import cycle_costs
from satmip_jax.planning.flops import step_flops
from satmip_jax.planning.hlo import Module, parse
from satmip_jax.planning.roofline import kernel_costs
from satmip_jax.planning.topology import compiler_options
from satmip_jax.training.step import Program

_SIZE = re.compile(r"\b([\d.]+)([KMGT])\b")
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclass(frozen=True)
class Forecast:
    """What the compiled program of a step says about a run on an accelerator.

    Attributes:
        accelerator: the devices.
        topology: of them, as the user gave it.
        devices: their number.
        needed: bytes of one device for arguments, results and temporary arrays; None if the step
            does not fit and the compiler does not say by how much.
        arguments: bytes of the state and the batch on one device.
        temporaries: bytes of the arrays within the step; 0 if it does not fit.
        model_flops: FLOPs of the architecture in one step on one device, without views.
        peak: FLOP/s of one device, for the dtype of the config.
        costs: of the operations; empty if the step does not fit.
        transfers: between the devices.
        program: text of the compiled program.
        module: the same, parsed.
    """

    accelerator: Accelerator
    topology: str
    devices: int
    needed: int | None
    arguments: int
    temporaries: int
    model_flops: float
    peak: float
    costs: list[Cost] = field(default_factory=list)
    transfers: list[Transfer] = field(default_factory=list)
    program: str = ""
    module: Module = field(default_factory=lambda: Module({}, ""))

    @property
    def is_compiled(self) -> bool:
        """Whether there is a program to read; there is none where the compiler has no room."""
        return bool(self.program)

    @property
    def fits(self) -> bool:
        """Whether the step fits into a device, with room for other arrays."""
        limit = memory.HEADROOM * self.accelerator.memory
        return self.is_compiled and self.needed is not None and self.needed <= limit

    @property
    def compute(self) -> float:
        """Seconds of all operations, one after the other."""
        return sum(cost.total for cost in self.costs)

    @property
    def exposed(self) -> float:
        """Seconds of the transfers that no compute hides."""
        link = self.accelerator.link
        return sum(transfer.times * transfer.exposed(link) for transfer in self.transfers)

    @property
    def step(self) -> float:
        """Seconds of a step: a lower bound on a GPU, based on XLA's estimate on a TPU."""
        return self.compute + self.exposed

    @property
    def cycles(self) -> int:
        """Cycles of a TPU, as XLA estimates them; Pallas kernels are not included."""
        return sum(cost.cycles * cost.times for cost in self.costs)

    @property
    def mfu(self) -> float | None:
        """Share of the peak that a step of that time uses for the architecture's products."""
        return self.model_flops / self.step / self.peak if self.step else None

    @property
    def unestimated(self) -> list[Cost]:
        """Pallas kernels of a TPU: XLA gives no estimate, and a lower bound stands for it."""
        return [cost for cost in self.costs if not cost.cycles and not self.accelerator.gpu]

    def record(self) -> dict[str, Any]:
        """Return the forecast as plain JSON, see docs/accelerators.md."""
        link = self.accelerator.link
        step: dict[str, Any] = {"step_bound_ms": 1e3 * self.step}
        if not self.accelerator.gpu:
            step = {"estimated_cycles": self.cycles, "estimated_ms": 1e3 * self.step}
        if not self.is_compiled:
            step = dict.fromkeys(step)
        return {
            "accelerator": self.accelerator.name,
            "topology": self.topology or "1",
            "devices": self.devices,
            "fits": self.fits,
            "needed_gib": None if self.needed is None else self.needed / 2**30,
            "arguments_gib": self.arguments / 2**30,
            "temporaries_gib": self.temporaries / 2**30 if self.is_compiled else None,
            "memory_gib": self.accelerator.memory / 2**30,
            **step,
            "exposed_transfer_ms": 1e3 * self.exposed,
            "mfu_bound": self.mfu,
            "model_flops": self.model_flops,
            "parts_ms": {part: 1e3 * seconds for part, seconds in by_part(self.costs).items()},
            "operations": [_operation(cost) for cost in merged(self.costs)],
            "collectives": [_collective(transfer, link) for transfer in self.transfers],
        }


def _operation(cost: Cost) -> dict[str, Any]:
    return {
        "part": cost.part,
        "name": cost.name,
        "op_name": cost.op_name,
        "shape": cost.shape,
        "times": cost.times,
        "total_ms": 1e3 * cost.total,
        "bytes": cost.bytes,
        "flops": cost.flops,
        "cycles": cost.cycles,
    }


def _collective(transfer: Transfer, link: float) -> dict[str, Any]:
    return {
        "kind": transfer.collective.kind,
        "group": transfer.collective.group,
        "part": transfer.part,
        "op_name": transfer.op_name,
        "times": transfer.times,
        "bytes": transfer.bytes,
        "bytes_by_dtype": dict(transfer.dtypes),
        "transfer_us": 1e6 * transfer.bytes / link,
        "compute_meanwhile_us": 1e6 * transfer.meanwhile,
        "hidden": transfer.exposed(link) == 0,
    }


def operation_costs(module: Module, accelerator: Accelerator) -> list[Cost]:
    """Return the costs of a program's operations: bounds on a GPU, estimates on a TPU."""
    return (kernel_costs if accelerator.gpu else cycle_costs)(module, accelerator)


def step_seconds(program: str, accelerator: Accelerator) -> float:
    """Return the lower bound (GPU) or the estimate (TPU) of a compiled step, in seconds.

    Args:
        program: its text, `compiled.as_text()`.
        accelerator: that it was compiled for.
    """
    module = parse(program)
    costs = operation_costs(module, accelerator)
    seconds = {cost.name: cost.seconds for cost in costs}
    found = transfers(module, seconds)
    exposed = sum(transfer.times * transfer.exposed(accelerator.link) for transfer in found)
    return sum(cost.total for cost in costs) + exposed


def needed_bytes(message: str) -> int | None:
    """Return the memory that a program without room needs: the largest size in XLA's message.

    Example:
        >>> from satmip_jax.planning.forecast import needed_bytes
        >>> message = "the total memory required (32.00G) exceeds available HBM (15.75G)."
        >>> needed_bytes(message) == 32 * 2**30
        True
    """
    sizes = [float(number) * _UNITS[unit] for number, unit in _SIZE.findall(message)]
    return int(max(sizes)) if sizes else None


def forecast(program: Program, accelerator: Accelerator, topology: str = "") -> Forecast:
    """Compile a step for an accelerator and read its needs and costs off the program.

    Args:
        program: built for a mesh of `topology_devices(accelerator, topology)`.
        accelerator: the devices.
        topology: of them, for the record.
    """
    flops = sum(n for part, n in step_flops(program).items() if part != "views")
    devices = program.mesh.size
    facts: dict[str, Any] = {
        "accelerator": accelerator,
        "topology": topology,
        "devices": devices,
        "model_flops": flops / devices,
        "peak": accelerator.peak(program.config.dtype),
    }
    try:
        compiled = memory.compile_step(program, compiler_options(accelerator))
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return Forecast(**facts, needed=needed_bytes(str(error)), arguments=0, temporaries=0)
    stats, text = compiled.memory_analysis(), compiled.as_text()
    module = parse(text)
    costs = operation_costs(module, accelerator)
    return Forecast(
        **facts,
        needed=memory.compiled_bytes(compiled),
        arguments=stats.argument_size_in_bytes,
        temporaries=stats.temp_size_in_bytes,
        costs=costs,
        transfers=transfers(module, {cost.name: cost.seconds for cost in costs}),
        program=text,
        module=module,
    )
