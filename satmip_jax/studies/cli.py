"""The `satmip study` command: one subcommand per study, with the options that it declares.

A study is imported when its subcommand or the list of studies is shown, not before.
"""

from __future__ import annotations

from collections import ChainMap
from typing import Any

import click

from satmip_jax.runtime.commands import RegistryGroup, flag, interruption_explained
from satmip_jax.studies.paper.cli import paper
from satmip_jax.studies.registry import STUDIES, open_study

COMPOSED: dict[str, click.Command] = {"paper": paper}  # studies that are made of others
NAMES: ChainMap[str, Any] = ChainMap(COMPOSED, STUDIES)  # those of STUDIES come first


@click.group(
    cls=RegistryGroup,
    names=NAMES,
    kind="study",
    build=lambda name: COMPOSED.get(name) or _command(name),
    subcommand_metavar="NAME --config FILE[:ARG] --out FOLDER [OPTIONS]",
    no_args_is_help=True,
)
def study() -> None:
    """Train and compare variants: one table and one plot. The same command resumes.

    `satmip study NAME --help` describes a study and its options.
    """


def _command(name: str) -> click.Command:
    """Build the subcommand of a study."""
    chosen = open_study(name)
    parameters: list[click.Parameter] = [
        click.Option(
            ["--config"],
            required=True,
            metavar="FILE[:ARG]",
            help="Config of all variants, such as configs/eurosat.py:satmips,cpu.",
        ),
        click.Option(
            ["--out"],
            required=True,
            help="Folder for the runs, the table and the plot.",
        ),
        click.Option(
            ["--seeds"],
            type=click.IntRange(1),
            default=1,
            show_default=True,
            help="Number of runs per variant.",
        ),
        click.Option(
            ["--eval-data"],
            multiple=True,
            help="Prepared folder to score on; may be repeated.  [default: the training data]",
        ),
        *map(flag, chosen.options.values()),
        click.Argument(["overrides"], nargs=-1, type=click.UNPROCESSED),
    ]

    def run(
        config: str,
        out: str,
        seeds: int,
        eval_data: tuple[str, ...],
        overrides: tuple[str, ...],
        **options: Any,
    ) -> None:
        from satmip_jax.config.loading import load_config, load_method_configs
        from satmip_jax.objectives import METHODS
        from satmip_jax.studies.runner import run_study

        with interruption_explained(
            f"interrupted. Runs and scores in {out} are kept: the same command resumes"
        ):
            run_study(
                name,
                load_config(config, overrides),
                out,
                method_configs=load_method_configs(config, overrides, list(METHODS)),
                seeds=seeds,
                eval_data=eval_data,
                options={key: value for key, value in options.items() if value is not None},
            )

    return click.Command(
        name,
        callback=run,
        params=parameters,
        short_help=chosen.title,
        help=f"{chosen.title}.\n\n{chosen.description}\n\nEach method is trained with its own "
        "recipe, if the config file has one (FILE:ARG,METHOD). Change values of the config with "
        "--config.key=value.",
        context_settings={"ignore_unknown_options": True},
    )
