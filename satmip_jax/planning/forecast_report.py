"""A forecast as facts and tables of `satmip doctor`."""

from __future__ import annotations

import re
from collections.abc import Iterator

from rich.table import Table

from satmip_jax.planning.collectives import Transfer
from satmip_jax.planning.costs import by_part, merged
from satmip_jax.planning.forecast import Forecast
from satmip_jax.planning.memory import HEADROOM

ROWS = 16  # of the table of operations


def facts(forecast: Forecast) -> Iterator[tuple[str, str, str]]:
    """Yield (topic, quantity, value) on memory, time and the parts of a step."""
    accelerator, topic = forecast.accelerator, "memory per device"
    if forecast.needed is not None:
        headroom = accelerator.memory - forecast.needed
        value = f"{_gib(forecast.needed)} of {_gib(accelerator.memory)}"
        yield topic, f"as compiled for {accelerator.name}", value
        if forecast.is_compiled:
            yield topic, "  arguments", _gib(forecast.arguments)
            yield topic, "  temporary arrays", _gib(forecast.temporaries)
        verdict = "fits" if forecast.fits else f"does not fit (a step may take {HEADROOM:.0%})"
        yield topic, "headroom", f"{_gib(headroom)}: {verdict}"
    if not forecast.is_compiled:
        return
    step, exposed = f"{_ms(forecast.step)} ms", forecast.exposed
    word = "of the bound"
    if accelerator.gpu:
        yield "step", "lower bound of the time", step
    else:
        word = "of the estimate"
        estimate = f"{forecast.cycles / 1e6:.2f} M cycles, {step} at {accelerator.clock / 1e9} GHz"
        yield "step", "XLA's estimate", estimate
        if pallas := sum(cost.total for cost in forecast.unestimated):
            value = f"{_ms(pallas)} ms as a lower bound: XLA gives no estimate"
            yield "step", "  Pallas kernels", value
    if exposed:
        yield "step", "  transfers without compute", f"{_ms(exposed)} ms"
    name = "upper bound of MFU" if accelerator.gpu else "MFU by that estimate"
    yield "step", name, f"{forecast.mfu or 0:.1%} of {forecast.peak / 1e12:,.0f} TFLOP/s"
    for part, seconds in by_part(forecast.costs).items():
        share = f"{_ms(seconds)} ms, {seconds / forecast.step:.1%}"
        yield f"parts {word}", part, share


def tables(forecast: Forecast) -> Iterator[Table]:
    """Yield the most expensive operations, and the transfers between devices."""
    if forecast.costs:
        yield _operations(forecast)
    if forecast.transfers:
        yield _transfers(forecast)


def _operations(forecast: Forecast) -> Table:
    gpu = forecast.accelerator.gpu is not None
    table = Table(title="most expensive operations, layers together", box=None)
    columns = ["ms", "runs", "MB", "GFLOP", "limit"] if gpu else ["ms", "runs"]
    for column in columns:
        table.add_column(column, justify="left" if column == "limit" else "right")
    table.add_column("part")
    table.add_column("operation", overflow="fold")
    for cost in merged(forecast.costs)[:ROWS]:
        cells = [_ms(cost.total), str(cost.times)]
        if gpu:
            limit = "FLOPs" if cost.by_products else "memory"
            cells += [f"{cost.bytes / 1e6:,.0f}", f"{cost.flops / 1e9:,.0f}", limit]
        table.add_row(*cells, cost.part, f"{_source(cost.op_name)} {cost.shape}")
    return table


def _ms(seconds: float) -> str:
    """Format milliseconds with three digits."""
    return f"{1e3 * seconds:.2f}" if seconds >= 1e-3 else f"{1e3 * seconds:.3f}"


def _source(op_name: str) -> str:
    """Return the last names of an operation's origin, without those of JAX's transformations."""
    parts = [part for part in op_name.split("/") if not re.search(r"[()<>]|closed_call", part)]
    return "/".join(parts[-2:])


def _transfers(forecast: Forecast) -> Table:
    table = Table(title="transfers, per device", box=None)
    for column in ("transfer", "among", "part", "dtype", "runs", "MB", "ms", "exposed ms"):
        left = column in ("transfer", "part", "dtype")
        table.add_column(column, justify="left" if left else "right")
    link = forecast.accelerator.link
    groups: dict[tuple[str, ...], list[Transfer]] = {}
    for transfer in forecast.transfers:
        kind, group = transfer.collective
        key = (kind, str(group), transfer.part, ", ".join(sorted(transfer.dtypes)))
        groups.setdefault(key, []).append(transfer)
    for names, found in sorted(groups.items(), key=lambda item: -_sent(item[1])):
        exposed = sum(t.times * t.exposed(link) for t in found)
        runs, size = str(sum(t.times for t in found)), _sent(found)
        hidden = _ms(exposed) if exposed else "hidden"
        table.add_row(*names, runs, f"{size / 1e6:,.2f}", _ms(size / link), hidden)
    return table


def _sent(transfers: list[Transfer]) -> int:
    """Return the bytes of all runs."""
    return sum(transfer.times * transfer.bytes for transfer in transfers)


def _gib(size: float) -> str:
    return f"{size / 2**30:,.2f} GiB"
