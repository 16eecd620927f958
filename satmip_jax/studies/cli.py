"""The `satmip study` command: one subcommand per study, with the options that it declares.

A study is imported when its subcommand or the list of studies is shown, not before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from satmip_jax.studies.registry import STUDIES, open_study

if TYPE_CHECKING:
    from satmip_jax.studies.base import Option


class _Studies(click.Group):
    """A subcommand per study, made on demand."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(STUDIES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return _command(cmd_name) if cmd_name in STUDIES else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in STUDIES and not args[0].startswith("-"):
            ctx.fail(f"unknown study {args[0]!r}: choose one of {', '.join(STUDIES)}")
        return super().resolve_command(ctx, args)


@click.group(
    cls=_Studies,
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
        click.Option(["--out"], required=True, help="Folder for the runs, the table and the plot."),
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
        *map(_flag, chosen.options),
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

        run_study(
            name,
            load_config(config, overrides),
            out,
            method_configs=load_method_configs(config, overrides, list(METHODS)),
            seeds=seeds,
            eval_data=eval_data,
            options=options,
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


def _flag(option: Option) -> click.Option:
    return click.Option(
        [option.flag],
        type=click.Choice(option.choices) if option.choices else option.type,
        default=option.default,
        show_default=bool(option.choices),
        help=option.help,
    )
