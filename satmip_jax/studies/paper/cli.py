"""The `satmip study paper` command."""

from __future__ import annotations

import click

from satmip_jax.planning.accelerators import ACCELERATORS
from satmip_jax.runtime.commands import LocalPath, interruption_explained


@click.command(
    "paper",
    short_help="The paper's tables, figures and claims",
    context_settings={"ignore_unknown_options": True},
)
@click.option(
    "--fmow",
    type=LocalPath(),
    help="Prepared folder of the training: fMoW, WILDS-fMoW, or any with labels and metadata.  "
    "[default: config.data.dir]",
)
@click.option(
    "--transfer",
    multiple=True,
    type=LocalPath(),
    help="Prepared folder to score on; may be repeated. Those of the paper are resisc45, "
    "optimal31, ucmerced, fgsc23, eurosat and so2sat.",
)
@click.option(
    "--config",
    default="configs/fmow.py",
    show_default=True,
    metavar="FILE[:ARG]",
    help="Config of all runs.",
)
@click.option("--out", required=True, help="Folder for the runs, tables, figures and verdicts.")
@click.option(
    "--seeds",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Number of runs per training; intervals need 2 or more.",
)
@click.option(
    "--parts",
    help="Parts to run, joined by commas.  "
    "[default: methods,modalities,convergence,fields,efficiency]",
)
@click.option(
    "--protocol",
    default="linear",
    show_default=True,
    help="Protocol of the scores in tables and claims; knn5 is the quick one, and computed in any "
    "case.",
)
@click.option(
    "--block",
    type=click.FloatRange(0),
    default=0.0,
    show_default=True,
    help="Side of the cells of additional, spatially blocked scores, degrees; 0 for none.",
)
@click.option("--dry-run", is_flag=True, help="Print runs and cost on this machine, and stop.")
@click.option(
    "--accelerator",
    type=click.Choice(list(ACCELERATORS)),
    help="Print runs and cost on this accelerator, which need not be here, and stop.",
)
@click.option(
    "--topology",
    default="",
    help="Number of these GPUs, or shape of the slice of TPUs, see satmip doctor.  [default: one]",
)
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED)
def paper(
    fmow: str | None,
    transfer: tuple[str, ...],
    config: str,
    out: str,
    seeds: int,
    parts: str | None,
    protocol: str,
    block: float,
    dry_run: bool,
    accelerator: str | None,
    topology: str,
    overrides: tuple[str, ...],
) -> None:
    """Run the paper's comparison: its tables, figures and claims, by one command.

    Methods, bimodal and metadata-only scores, lengths of training, groups of fields, time and
    memory; each claim gets a verdict with the interval over the seeds. Equal trainings are one run.
    The cost is printed first. The same command resumes. Change values of the config with
    --config.key=value.
    """
    if topology and not accelerator:
        raise click.UsageError("--topology needs --accelerator")

    from satmip_jax.config.loading import load_config, load_method_configs
    from satmip_jax.objectives import METHODS
    from satmip_jax.planning.dry_run import use_virtual_devices
    from satmip_jax.studies.paper.parts import PARTS
    from satmip_jax.studies.paper.run import PaperOptions, run_paper

    if accelerator:
        use_virtual_devices(1)
        fmow = fmow or ""
    changes = overrides if fmow is None else (*overrides, f"--config.data.dir={fmow}")
    options = PaperOptions(
        parts=tuple(PARTS) if parts is None else parts.split(","),
        seeds=seeds,
        transfer=transfer,
        protocol=protocol,
        block=block,
        plan_only=dry_run,
        accelerator=ACCELERATORS[accelerator] if accelerator else None,
        topology=topology,
        method_configs=load_method_configs(config, changes, list(METHODS)),
    )
    with interruption_explained(
        f"interrupted. Runs and scores in {out} are kept: the same command resumes"
    ):
        run_paper(load_config(config, changes), out, options)
