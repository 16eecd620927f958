"""Scaling of the step time with batch, image side, depth, fields and devices, one at a time."""

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
from satmip_jax.bench.timing import Measurement, over_rounds
from satmip_jax.config.conversion import vary
from satmip_jax.distributed.sharding import make_mesh
from satmip_jax.metadata.fields import FIELDS
from satmip_jax.models.vit import parse_vit, shape_of
from satmip_jax.planning import memory
from satmip_jax.training.step import build_program

FACTORS = (0.25, 0.5, 1, 2)  # of the config's batch, side and depth


def variants(config: ConfigDict, devices: int) -> dict[str, dict[float, ConfigDict]]:
    """Return configs with one value changed at a time.

    Values that a config cannot have (half a patch, a depth below one) are left out. "devices"
    keeps the config, and with it the global batch size.

    Args:
        config: the base config.
        devices: number of devices available.

    Returns:
        Axis -> value on the axis -> config.

    Example:
        >>> from satmip_jax.bench.scaling import variants
        >>> list(variants(config, devices=1)["batch"])
        [4, 8, 16, 32]
    """
    variant, patch = parse_vit(config.image.encoder)
    width, depth, heads = shape_of(variant)
    axes: dict[str, dict[float, ConfigDict]] = {
        axis: {} for axis in ("batch", "side", "depth", "fields", "devices")
    }
    for factor in FACTORS:
        batch = int(factor * config.optimizer.batch_size)
        if batch > 1:  # batch norm needs several examples
            axes["batch"][batch] = vary(config, {"optimizer.batch_size": batch})
        if side := int(factor * config.image.size) // patch * patch:
            axes["side"][side] = vary(config, {"image.size": side})
        if layers := int(factor * depth):
            encoder = f"{width}x{layers}x{heads}/{patch}"
            axes["depth"][layers] = vary(config, {"image.encoder": encoder})
    for count in sorted({1, 2, 4, 8, len(FIELDS)}):
        names = "+".join(field.name for field in FIELDS[:count])
        axes["fields"][count] = vary(config, {"metadata.fields": names})
    for exponent in range(devices.bit_length()):
        axes["devices"][2**exponent] = config
    return axes


def bench(config: ConfigDict, *, rounds: int) -> Iterator[Measurement]:
    """Time one step of every variant, in turn along each axis, on noise instead of data.

    Args:
        config: the base config.
        rounds: turns per variant.

    Yields:
        Step time and memory of each variant.
    """
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
            summary = over_rounds([second for turn in times for second in turn])
            yield Measurement("scaling", axis, "step time", unit="s", facts=facts, **summary)
            if (size := steps[value].bytes) is not None:
                mebibytes = size / 2**20
                yield Measurement("scaling", axis, "memory", mebibytes, "MiB/device", facts=facts)


def exponents(measurements: Sequence[Measurement]) -> Mapping[str, float]:
    """Return the exponent of the step time on each axis, between its last two values.

    An exponent of 1 means that a doubled value doubles the time, 0 that it does not change it.

    Args:
        measurements: those of `bench`.

    Returns:
        Axis -> exponent.
    """
    result = {}
    for axis in dict.fromkeys(m.variant for m in measurements):
        points = [(m.facts["at"], m.value) for m in measurements if _is_time(m, axis)]
        if len(points) > 1:
            (x0, y0), (x1, y1) = points[-2:]
            result[axis] = math.log(y1 / y0) / math.log(x1 / x0)
    return result


def draw(measurements: Sequence[Measurement], path: Path, title: str) -> None:
    """Draw the step time in one panel per axis, on logarithmic scales, with a linear reference.

    Args:
        measurements: those of `bench`.
        path: file to write, PNG or SVG.
        title: title of the figure.
    """
    axes = list(dict.fromkeys(m.variant for m in measurements))
    slopes = exponents(measurements)
    figure = Figure(figsize=(2.6 * len(axes), 2.9), layout="constrained")
    figure.suptitle(title, fontsize=10)
    panels = figure.subplots(1, len(axes), sharey=True, squeeze=False)[0]
    for panel, axis in zip(panels, axes, strict=True):
        times = [m for m in measurements if _is_time(m, axis)]
        x = np.array([m.facts["at"] for m in times], float)
        y = np.array([m.value for m in times])
        low, high = (np.array([getattr(m, end) for m in times]) for end in ("low", "high"))
        panel.plot(x, y[-1] * x / x[-1], color="#bbbbbb", lw=1, ls="--", label="linear")
        panel.errorbar(x, y, [y - low, high - y], marker="o", ms=4, color="#0072B2", capsize=2)
        panel.set_xscale("log", base=2)
        panel.set_yscale("log", base=2)
        panel.set_xticks(x, [f"{value:g}" for value in x])
        panel.set_xlabel(f"{axis} (exponent {slopes[axis]:.2f})" if axis in slopes else axis)
        panel.grid(color="#e3e5e8")
        panel.set_axisbelow(True)
    panels[0].yaxis.set_major_formatter("{x:.3g}")
    panels[0].set_ylabel("step time, s")
    panels[0].legend(fontsize=8, frameon=False)
    figure.savefig(path, dpi=150)


def _is_time(m: Measurement, axis: str) -> bool:
    return m.variant == axis and m.metric == "step time"
