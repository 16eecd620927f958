"""The `satmip` command. Each subcommand is a few lines that call the library.

Nothing heavy is imported before a subcommand runs, so that `satmip --help` answers at once.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

import satmip_jax


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(satmip_jax.__version__)
def cli() -> None:
    """Learn representations of satellite images from their metadata (SatMIP, in JAX)."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # no start-up notes of XLA
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")


@cli.command()
@click.option("--data", type=click.Path(exists=True, file_okay=False), help="Prepared real data.")
@click.option("--out", default="runs/quickstart", show_default=True, help="Folder for the results.")
def quickstart(data: str | None, out: str) -> None:
    """Synthetic data, training, scores and a page of pictures, in a few minutes on a CPU."""
    from satmip_jax.quickstart import quickstart

    quickstart(Path(out), data)


@cli.command()
@click.argument("source", type=click.Choice(["fmow", "eurosat", "folder", "synthetic"]))
@click.option("--source", "paths", multiple=True, required=True, help="Folder or archive.")
@click.option("--out", required=True, help="Folder for the shards.")
def prepare(source: str, paths: tuple[str, ...], out: str) -> None:
    """Convert a data set into shards."""
    raise NotImplementedError


@cli.command(context_settings={"ignore_unknown_options": True})
@click.option("--config", required=True, metavar="FILE[:ARG]", help="Such as configs/fmow.py:s16.")
@click.option("--workdir", required=True, help="Checkpoints and metrics; resumes what is there.")
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED)
def train(config: str, workdir: str, overrides: tuple[str, ...]) -> None:
    """Train; the same command resumes. Options of the config: --config.key=value."""
    from satmip_jax.config import load_config
    from satmip_jax.train import train

    train(load_config(config, overrides), workdir)


@cli.command()
@click.option("--workdir", required=True, help="Run whose checkpoint is scored; results go there.")
@click.option("--data", required=True, help="Folder written by `satmip prepare`.")
@click.option("--split", default="val", show_default=True, help="Examples to classify.")
@click.option("--bank", default="train", show_default=True, help="Examples whose labels vote.")
@click.option("--features", default="image,metadata,both", show_default=True)
@click.option("--init", type=click.Choice(["trained", "random"]), default="trained")
@click.option(
    "--baseline",
    type=click.Choice(["colour", "patches", "fields"]),
    help="Score features that need no training instead.",
)
@click.option("--fields", default="all", show_default=True, help="Of --baseline fields.")
def evaluate(
    workdir: str,
    data: str,
    split: str,
    bank: str,
    features: str,
    init: str,
    baseline: str | None,
    fields: str,
) -> None:
    """Score representations by kNN into evaluation.json."""
    from satmip_jax.evaluation.evaluate import evaluate, evaluate_baseline
    from satmip_jax.evaluation.results import print_rows, write_rows

    if baseline:
        rows = evaluate_baseline(baseline, data, split=split, bank=bank, fields=fields)
    else:
        wanted = features.split(",")
        rows = evaluate(workdir, data, split=split, bank=bank, features=wanted, init=init)
    write_rows(Path(workdir) / "evaluation.json", rows)
    print_rows(rows)


def main() -> None:
    """Run the command; what a user can mend is one message, not a traceback."""
    try:
        cli(standalone_mode=True)
    except Exception as error:
        if type(error).__module__.startswith("satmip_jax") or isinstance(error, MemoryError):
            click.echo(f"satmip: {error}", err=True)
            sys.exit(130 if type(error).__name__ == "Interrupted" else 1)
        raise


if __name__ == "__main__":
    main()
