"""The `satmip` command: each subcommand is a few lines that call the library.

Nothing heavy is imported before a subcommand runs, so that `satmip --help` appears at once.
"""

from __future__ import annotations

import os
import traceback
from pathlib import Path
from typing import Any

import click

import satmip_jax
from satmip_jax.bench.cli import bench
from satmip_jax.distributed import multihost
from satmip_jax.errors import INTERRUPTED, SatmipError
from satmip_jax.inference.cli import calibrate, embed, export, locate, models, search
from satmip_jax.planning.cli import doctor
from satmip_jax.prepare.cli import prepare
from satmip_jax.pretrained import MODELS
from satmip_jax.runtime import console
from satmip_jax.runtime.commands import (
    InterruptibleGroup,
    LocalPath,
    config_option,
    interruption_explained,
)
from satmip_jax.runtime.paths import as_path
from satmip_jax.studies.cli import study


@click.group(
    cls=InterruptibleGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(satmip_jax.__version__)
@click.option(
    "--log-level",
    envvar="SATMIP_LOG",
    type=click.Choice(console.LEVELS, case_sensitive=False),
    default="info",
    show_default=True,
    show_envvar=True,
    help="Minimum level of the messages on stderr.",
)
def cli(log_level: str) -> None:
    """Learn representations of satellite images from their metadata (SatMIP, in JAX)."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # no start-up messages of XLA
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    # XLA calls LAPACK from its own threads. Those of OpenBLAS spin while they wait for each other:
    # on busy cores an eigendecomposition then takes 100 times as long.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    console.setup_logging(log_level)


@cli.command(context_settings={"ignore_unknown_options": True})
@click.option(
    "--data",
    type=LocalPath(exists=True, file_okay=False),
    help="Your data, prepared or as published.  [default: synthetic scenes]",
)
@click.option(
    "--out",
    type=LocalPath(),
    default="runs/quickstart",
    show_default=True,
    help="Folder for the results.",
)
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED)
def quickstart(data: str | None, out: str, overrides: tuple[str, ...]) -> None:
    """Prepare data, train, evaluate and write a report, in a few minutes on a CPU.

    Change values of the config with --config.key=value.
    """
    from satmip_jax.quickstart import quickstart

    with interruption_explained(
        f"interrupted. What is finished in {out} is kept: the same command resumes"
    ):
        quickstart(Path(out), data, overrides)


cli.add_command(prepare)


@cli.command("init-config")
@click.argument("file", type=LocalPath(dir_okay=False))
@click.option("--data", required=True, help="Folder written by `satmip prepare`.")
def init_config(file: str, data: str) -> None:
    """Write a commented config for your data: their fields, and sizes that suit them."""
    from satmip_jax.config.template import write_config

    for line in write_config(Path(file), data):
        click.echo(line)


@cli.command(context_settings={"ignore_unknown_options": True})
@config_option
@click.option(
    "--workdir",
    required=True,
    help="Folder for checkpoints and metrics, also in gs:// or s3://; an existing run resumes.",
)
@click.option(
    "--init",
    metavar="FILE_OR_MODEL",
    help="Begin with the weights of an image encoder: a safetensors file of timm, DINO, DINOv2, "
    "MAE or CLIP, its folder, or a model of this package.",
)
@click.option(
    "--extend",
    is_flag=True,
    help="Train a finished run for longer, to the length that --config.optimizer.images gives.",
)
@click.option("--coordinator", metavar="HOST:PORT", help="Several hosts: address of process 0.")
@click.option(
    "--processes", "count", type=click.IntRange(1), help="Several hosts: number of processes."
)
@click.option(
    "--process", type=click.IntRange(0), help="Several hosts: number of this process, from 0."
)
@click.option(
    "--heartbeat",
    type=click.IntRange(5),
    default=multihost.HEARTBEAT,
    show_default=True,
    help="Several hosts: seconds without a heartbeat after which a process counts as dead.",
)
@click.option(
    "--wandb",
    default="",
    metavar="PROJECT",
    help="Send metrics to this project (or ENTITY/PROJECT) of Weights & Biases, too.",
)
@click.option(
    "--profile",
    metavar="FIRST:LAST",
    help="Write a JAX profiler trace of these steps, counted from 0, to WORKDIR/profile.",
)
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED)
def train(
    config: str,
    workdir: str,
    init: str | None,
    extend: bool,
    coordinator: str | None,
    count: int | None,
    process: int | None,
    heartbeat: int,
    profile: str | None,
    wandb: str,
    overrides: tuple[str, ...],
) -> None:
    """Train a model. The same command resumes an interrupted run.

    Change values of the config with --config.key=value. On several hosts, run the same command on
    each. Cloud TPU, SLURM, Open MPI and Kubernetes are detected; elsewhere give --coordinator,
    --processes and --process.
    """
    as_path(workdir)  # refused, if it must be, before the processes of other hosts are joined
    multihost.start(coordinator, count, process, heartbeat=heartbeat)

    from satmip_jax.config.loading import load_config
    from satmip_jax.training.loop import train
    from satmip_jax.training.profiling import parse_steps

    steps = parse_steps(profile) if profile else range(0)
    loaded = load_config(config, overrides)
    train(loaded, workdir, init=init, extend=extend, profile_steps=steps, wandb=wandb)


cli.add_command(doctor)


@cli.command()
@click.option(
    "--workdir",
    "--model",
    required=True,
    help="Model to evaluate: a workdir, an exported folder, or the name of a shipped model.",
)
@click.option(
    "--out",
    help="File that the scores are added to.  [default: evaluation.json of the model"
    "; none for a shipped one]",
)
@click.option("--data", required=True, help="Folder written by `satmip prepare`.")
@click.option("--split", default="val", show_default=True, help="Split to classify.")
@click.option("--bank", default="train", show_default=True, help="Split with the known labels.")
@click.option(
    "--tune",
    help="Split for the choice of weights and regularization; it also joins the bank.  "
    "[default: a fifth of the bank]",
)
@click.option(
    "--features",
    default="image,metadata,both",
    show_default=True,
    help="Features to classify by, separated by commas.",
)
@click.option(
    "--fields",
    default="all",
    show_default=True,
    help="Metadata fields that the encoder sees, such as GSD+Time; or several selections, separated"
    " by commas, such as all,all-leak.",
)
@click.option(
    "--protocols",
    help="Classifiers, separated by commas, such as knn5,linear.  [default: all but torchgeo-*]",
)
@click.option(
    "--block",
    type=click.FloatRange(0),
    default=1.0,
    show_default=True,
    help="Cell size of spatially blocked cross-validation, degrees; 0 for no blocked scores.",
)
@click.option(
    "--init",
    type=click.Choice(["trained", "random"]),
    default="trained",
    show_default=True,
    help="Encoders after training, or drawn from the seed of the run.",
)
@click.option(
    "--baseline",
    metavar="NAME",
    help="Evaluate features that need no training instead, such as colour or fields.",
)
def evaluate(
    workdir: str,
    data: str,
    features: str,
    fields: str,
    protocols: str | None,
    init: str,
    baseline: str | None,
    out: str | None,
    **options: Any,
) -> None:
    """Evaluate representations by kNN and linear probe."""
    from satmip_jax.evaluation.evaluate import evaluate, evaluate_baseline
    from satmip_jax.evaluation.protocols import main_scores
    from satmip_jax.evaluation.results import print_scores, write_scores
    from satmip_jax.runtime import compilation_cache
    from satmip_jax.runtime.stores import check_access

    compilation_cache.enable()
    scores = as_path(out) if out else as_path(workdir) / "evaluation.json"
    check_access(scores)
    shipped = not out and workdir in MODELS and not as_path(workdir).exists()
    options["protocols"] = _names(protocols) if protocols else None
    if baseline:
        rows = evaluate_baseline(baseline, data, fields=_names(fields), **options)
    else:
        options |= {"features": _names(features), "fields": _names(fields), "init": init}
        rows = evaluate(workdir, data, **options)
    if not shipped:
        write_scores(scores, rows)
    shown = rows if protocols else main_scores(rows)
    print_scores(shown)
    count = (
        f"{len(rows)} scores" if len(shown) == len(rows) else f"{len(shown)} of {len(rows)} scores"
    )
    if shipped:
        click.echo(f"{count}; --protocols prints others, --out FILE keeps all")
    else:
        page = "" if out else f"; `satmip report {workdir}` makes a page of them"
        click.echo(f"{count}; all are in {scores}{page}")


def _names(text: str) -> list[str]:
    """Return the names in a list separated by commas."""
    return [name.strip() for name in text.split(",")]


cli.add_command(models)
cli.add_command(embed)
cli.add_command(export)
cli.add_command(search)
cli.add_command(calibrate)
cli.add_command(locate)
cli.add_command(study)
cli.add_command(bench)


@cli.command()
@click.argument("folders", nargs=-1, required=True, metavar="RUN_OR_STUDY...")
@click.option("--out", default="report.html", show_default=True, help="HTML file to write.")
@click.option(
    "--data", help="Prepared data to show images of.  [default: the training data of each run]"
)
def report(folders: tuple[str, ...], out: str, data: str | None) -> None:
    """Write an HTML page on runs and studies: scores, curves, neighbours, maps."""
    from satmip_jax.report.page import write_report

    click.echo(f"Open {write_report(folders, out, data=data)} in a browser.")


@cli.command()
@click.argument("workdirs", nargs=-1, required=True, metavar="WORKDIR...")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def status(workdirs: tuple[str, ...], as_json: bool) -> None:
    """Show how far runs are, how well, and whether they are running.

    WORKDIR is the folder of a run, one above those of several, or a pattern such as "runs/*".
    """
    import json

    from rich.console import Console

    from satmip_jax.report.status import find_runs, read_status, status_table

    statuses = [read_status(folder) for folder in find_runs(workdirs)]
    if as_json:
        click.echo(json.dumps([one.record() for one in statuses], indent=2))
        return
    Console().print(status_table(statuses))
    for one in statuses:
        if one.reason:
            click.echo(f"{one.folder}: {one.reason}")


def main() -> None:
    """Run the command; print errors that a user can fix as one message, without traceback."""
    code: Any = 1
    try:
        cli(standalone_mode=True)
    except SystemExit as leaving:  # how click ends, also without errors
        code = leaving.code
    except Exception as error:
        if isinstance(error, SatmipError):
            code = error.exit_code
        if isinstance(error, SatmipError | MemoryError | OSError):  # also a full disk
            click.echo(f"satmip: {str(error) or type(error).__name__}", err=True)
        else:
            traceback.print_exc()
    multihost.leave(code, together=code in (None, 0, INTERRUPTED))


if __name__ == "__main__":
    main()
