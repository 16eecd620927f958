"""`satmip doctor`: the needs and problems of a training, without running it."""

from __future__ import annotations

import click

from satmip_jax.planning.accelerators import ACCELERATORS
from satmip_jax.runtime.commands import LocalPath, config_option


@click.command(context_settings={"ignore_unknown_options": True})
@config_option
@click.option(
    "--devices",
    type=click.IntRange(1),
    help="Number of devices, simulated on the CPU.  [default: the devices of this machine]",
)
@click.option(
    "--hosts", type=click.IntRange(1), help="Number of hosts.  [default: one per 8 devices]"
)
@click.option(
    "--device-memory",
    type=float,
    help="Memory per device, GiB.  [default: as reported by the device]",
)
@click.option(
    "--workdir",
    default=".",
    show_default=True,
    help="Folder for the checkpoints.",
)
@click.option(
    "--accelerator",
    type=click.Choice(list(ACCELERATORS)),
    help="Compile for this accelerator, which need not be here, instead of --devices.",
)
@click.option(
    "--topology",
    help="Number of GPUs, such as 8, or shape of the slice of TPUs, such as 4x4.  [default: one]",
)
@click.option(
    "--slices",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Number of such slices of TPUs, which the data center's network connects.",
)
@click.option(
    "--compile/--no-compile",
    "compiled",
    default=True,
    help="Compile the step; without, report the mesh, the rows of each host, batch and state, for "
    "which no compiler is needed.  [default: compile]",
)
@click.option(
    "--json",
    "json_file",
    is_flag=False,
    flag_value="-",
    type=LocalPath(dir_okay=False, allow_dash=True),
    help="With --accelerator: write the result as JSON to this file, or instead of the report to "
    "stdout.",
)
@click.option(
    "--save-program",
    type=LocalPath(dir_okay=False),
    help="With --accelerator: write the compiled program to this file, as text.",
)
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED)
def doctor(
    config: str,
    devices: int | None,
    hosts: int | None,
    device_memory: float | None,
    workdir: str,
    accelerator: str | None,
    topology: str | None,
    slices: int,
    compiled: bool,
    json_file: str | None,
    save_program: str | None,
    overrides: tuple[str, ...],
) -> None:
    """Report the needs and problems of a training run, without running it.

    Change values of the config with --config.key=value. The exit status is 1 if there are problems.
    """
    if accelerator and (devices or hosts or device_memory):
        raise click.UsageError(
            "--accelerator replaces --devices, --hosts and --device-memory: --topology"
        )
    if not accelerator and (topology or slices > 1 or json_file or save_program):
        raise click.UsageError("--topology, --slices, --json and --save-program need --accelerator")
    if save_program and not compiled:
        raise click.UsageError("--save-program needs the compiled step: leave out --no-compile")

    from rich.console import Console

    from satmip_jax.config.loading import load_config
    from satmip_jax.planning.dry_run import diagnose, use_virtual_devices

    if devices or accelerator:
        use_virtual_devices(devices or 1)
    loaded = load_config(config, overrides)
    diagnosis = diagnose(
        loaded,
        devices=devices,
        hosts=hosts or 0,
        device_memory=(device_memory or 0) * 2**30,
        disk=workdir,
        accelerator=ACCELERATORS[accelerator] if accelerator else None,
        topology=topology or "",
        slices=slices,
        compiled=compiled,
    )
    if json_file != "-":
        diagnosis.show(Console())
    diagnosis.write(json_file, save_program)
    raise SystemExit(1 if diagnosis.problems else 0)
