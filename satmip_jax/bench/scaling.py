"""How the time of a training step grows with what a user turns up, one thing at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict
from tqdm import tqdm

from satmip_jax.bench.step import compile_step, noise, take_turns
from satmip_jax.bench.timing import Measurement, spread
from satmip_jax.config.conversion import vary
from satmip_jax.distributed.sharding import make_mesh
from satmip_jax.metadata.fields import FIELDS
from satmip_jax.models.vit import parse_vit, shape_of
from satmip_jax.planning import memory
from satmip_jax.training.step import build_program

FACTORS = (0.25, 0.5, 1, 2)  # of the config's own batch, side and depth


def variants(config: ConfigDict, devices: int) -> dict[str, dict[float, ConfigDict]]:
    """Axis -> its value -> the config with that value and nothing else changed.

    Values that a config cannot have (half a patch, a depth below one) are left out; "devices"
    leaves the config, and with it the global batch, as it is.

    Example:
        >>> list(variants(load_config("configs/eurosat.py:satmips,cpu"), 1)["batch"])
        [32, 64, 128, 256]
    """
    variant, patch = parse_vit(config.image.encoder)
    width, depth, heads = shape_of(variant)
    found: dict[str, dict[float, ConfigDict]] = {
        axis: {} for axis in ("batch", "side", "depth", "fields", "devices")
    }
    for factor in FACTORS:
        batch = int(factor * config.optimizer.batch_size)
        if batch > 1:  # a batch norm of one example is none
            found["batch"][batch] = vary(config, {"optimizer.batch_size": batch})
        if side := int(factor * config.image.size) // patch * patch:
            found["side"][side] = vary(config, {"image.size": side})
        if layers := int(factor * depth):
            encoder = f"{width}x{layers}x{heads}/{patch}"
            found["depth"][layers] = vary(config, {"image.encoder": encoder})
    for count in sorted({1, 2, 4, 8, len(FIELDS)}):
        names = "+".join(field.name for field in FIELDS[:count])
        found["fields"][count] = vary(config, {"metadata.fields": names})
    for exponent in range(devices.bit_length()):
        found["devices"][2**exponent] = config
    return found


def bench(config: ConfigDict, *, rounds: int) -> Iterator[Measurement]:
    """Time one step of every variant, all of an axis in turn; noise instead of data."""
    for axis, configs in variants(config, jax.device_count()).items():
        steps, batches = {}, {}
        for value, changed in tqdm(configs.items(), desc=f"compiling: {axis}", leave=False):
            mesh = make_mesh(jax.devices()[: int(value) if axis == "devices" else 1])
            schema, examples = memory.schema_of(changed, None)
            program = build_program(changed, schema, examples, mesh)
            steps[value], batches[value] = compile_step(program), noise(program)
        seconds = take_turns(steps, batches, rounds=rounds, steps=1)
        for value, times in seconds.items():
            facts = {"axis": axis, "at": value}
            numbers = spread([second for turn in times for second in turn])
            yield Measurement("growth", axis, "step", unit="s", facts=facts, **numbers)
            size = steps[value].bytes
            if size is not None:
                yield Measurement("growth", axis, "memory", size / 2**20, "MiB/device", facts=facts)


def exponents(found: Sequence[Measurement]) -> Mapping[str, float]:
    """Axis -> the power of its value with which the step's time grows, between its last two.

    1: twice as much takes twice as long; 0: no longer at all.
    """
    result = {}
    for axis in dict.fromkeys(m.variant for m in found):
        points = [(m.facts["at"], m.value) for m in found if _is_time(m, axis)]
        if len(points) > 1:
            (x0, y0), (x1, y1) = points[-2:]
            result[axis] = math.log(y1 / y0) / math.log(x1 / x0)
    return result


def draw(found: Sequence[Measurement], path: Path, title: str) -> None:
    """One panel for each axis: time against value, both logarithmic, and a line of power one."""
    axes = list(dict.fromkeys(m.variant for m in found))
    powers = exponents(found)
    figure = Figure(figsize=(2.6 * len(axes), 2.9), layout="constrained")
    figure.suptitle(title, fontsize=10)
    panels = figure.subplots(1, len(axes), sharey=True, squeeze=False)[0]
    for panel, axis in zip(panels, axes, strict=True):
        times = [m for m in found if _is_time(m, axis)]
        x = np.array([m.facts["at"] for m in times], float)
        y = np.array([m.value for m in times])
        low, high = (np.array([getattr(m, end) for m in times]) for end in ("low", "high"))
        panel.plot(x, y[-1] * x / x[-1], color="#bbbbbb", lw=1, ls="--", label="linear")
        panel.errorbar(x, y, [y - low, high - y], marker="o", ms=4, color="#0072B2", capsize=2)
        panel.set_xscale("log", base=2)
        panel.set_yscale("log", base=2)
        panel.set_xticks(x, [f"{value:g}" for value in x])
        panel.set_xlabel(f"{axis} (power {powers[axis]:.2f})" if axis in powers else axis)
        panel.grid(color="#e3e5e8")
        panel.set_axisbelow(True)
    panels[0].yaxis.set_major_formatter("{x:.3g}")
    panels[0].set_ylabel("seconds of a step")
    panels[0].legend(fontsize=8, frameon=False)
    figure.savefig(path, dpi=150)


def _is_time(m: Measurement, axis: str) -> bool:
    return m.variant == axis and m.metric == "step"
