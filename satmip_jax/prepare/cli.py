"""The `satmip prepare` command: one subcommand per source, with the options that it declares.

A source is imported when its subcommand is used, so that the list of sources appears at once.
"""

from __future__ import annotations

from typing import Any

import click

from satmip_jax.runtime.commands import LocalPath, RegistryGroup, flag, interruption_explained
from satmip_jax.runtime.options import Option, argument_help
from satmip_jax.sources.base import TFDS, Source, source_options
from satmip_jax.sources.registry import SOURCES, source_class


class _Sources(RegistryGroup):
    """A subcommand per source; the list of sources is shown without importing them."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Sources"):
            formatter.write_dl([(name, entry.title) for name, entry in SOURCES.items()])


class _SourceCommand(click.Command):
    """A command with a section of help for the options of its source, listed in errors, too."""

    flags: tuple[str, ...] = ()

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        of_source: list[tuple[str, str]] = []
        common: list[tuple[str, str]] = []
        for parameter in self.get_params(ctx):
            if record := parameter.get_help_record(ctx):
                (of_source if parameter.opts[0] in self.flags else common).append(record)
        for title, records in (("Options", common), (f"Options of {self.name}", of_source)):
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.MissingParameter:
            raise
        except (click.NoSuchOption, click.BadParameter) as error:
            text, flags = error.format_message().rstrip("."), ", ".join(self.flags) or "none"
            raise click.UsageError(f"{text} (options of {self.name}: {flags})", ctx) from error


@click.group(
    cls=_Sources,
    names=SOURCES,
    kind="source",
    build=lambda name: _command(name),
    options_metavar="",
    subcommand_metavar="SOURCE --source PATH --out FOLDER [OPTIONS]",
    no_args_is_help=True,
)
def prepare() -> None:
    """Convert a data set into shards. The same command resumes an interrupted conversion.

    `satmip prepare SOURCE --help` shows the options of a source.
    """


def _command(name: str) -> click.Command:
    """Return the subcommand of a source."""
    cls = source_class(name)
    options = source_options(cls)
    shares = options.pop("splits", None)  # one flag: names to convert, or shares to draw

    def run(paths: tuple[str, ...], splits: str | None, **given: Any) -> None:
        chosen = {key: given.pop(key) for key in options}
        chosen = {key: value for key, value in chosen.items() if value is not None}
        if shares and splits and "=" in splits:
            chosen["splits"], splits = splits, None
        with interruption_explained(
            f"interrupted. Finished shards in {given['out']} are kept: the same command resumes"
        ):
            _run(name, paths, chosen, splits, **given)

    common = _common(cls, shares)
    taken = {name for parameter in common for name in parameter.opts}
    if clash := taken & {option.flag for option in options.values()}:
        raise TypeError(f"{name}: {min(clash)} is an option of every source: rename the source's")
    command = _SourceCommand(
        name,
        callback=run,
        params=[*common, *map(flag, options.values())],
        help=f"{SOURCES[name].title}.",
        epilog=f"License: {cls.license}. {cls.homepage if '://' in cls.homepage else ''}",
    )
    command.flags = tuple(option.flag for option in options.values())
    return command


def _run(
    source_name: str,
    paths: tuple[str, ...],
    options: dict[str, Any],
    splits: str | None,
    image_size: int | None,
    **given: Any,
) -> None:
    from satmip_jax.prepare.report import describe_for_training
    from satmip_jax.prepare.run import prepare
    from satmip_jax.runtime.paths import as_path
    from satmip_jax.runtime.stores import check_access
    from satmip_jax.sources.registry import open_source

    check_access(as_path(given["out"]))  # listing a source may take minutes
    source = open_source(source_name, paths, **options)
    for line in describe_for_training(source):  # before the work, in time to stop it
        click.echo(line)
    report = prepare(
        source,
        image_size=image_size or source.image_size,
        splits=None if splits is None else [part.strip() for part in splits.split(",")],
        **given,
    )
    report.show()
    click.echo(f"splits: {source.splits_from}")


def _common(cls: type[Source], shares: Option | None) -> list[click.Parameter]:
    """Options of every source."""
    paths = argument_help(cls).get("paths", "Files and folders of the data set.")
    tfds = f" Or {TFDS}NAME, prepared by TensorFlow Datasets." if cls.tfds_name else ""
    splits = "Splits to convert, such as train,val"
    splits += f"; or {shares.help[:1].lower()}{shares.help[1:]}" if shares else "."
    parameters: list[click.Parameter] = [
        click.Option(
            ["--source", "paths"],
            multiple=True,
            required=not cls.generates,
            type=LocalPath(),
            help=f"{paths}{tfds}{'' if cls.generates else ' May be repeated.'}",
        ),
        click.Option(["--out"], required=True, help="Folder for the shards."),
        click.Option(
            ["--name"],
            help=f"Name of the data set in file names and scores.  [default: {cls.name}]",
        ),
        click.Option(
            ["--image-size"],
            type=click.IntRange(8),
            help=f"Side of the stored squares, pixels.  [default: {cls.image_size}]",
        ),
        click.Option(
            ["--bands"],
            metavar="R,G,B",
            help="Bands to store as red, green and blue, numbered from 1, such as 4,3,2; or one to "
            "store as grey.  [default: 1,2,3; needed if there are not 1, 3 or 4 bands]",
        ),
        click.Option(
            ["--scale"],
            metavar="LOW,HIGH|percentile",
            help="Scale values that are not 8-bit: LOW and HIGH become 0 and 255; percentile takes "
            "the 2nd and 98th percentile of each image.  [default: reject such images]",
        ),
        click.Option(["--splits"], help=f"{splits}  [default: all]"),
        click.Option(
            ["--limit"],
            type=click.IntRange(1),
            help="Maximum number of examples per split, spread evenly.",
        ),
        click.Option(
            ["--statistics-from"],
            help="Prepared folder whose statistics to use.  [default: compute those of train]",
        ),
        click.Option(
            ["--workers"],
            type=click.IntRange(0),
            help="Worker processes; 0 works in the main process.  [default: one per core]",
        ),
        click.Option(
            ["--runner"],
            type=click.Choice(["local", "beam"]),
            default="local",
            show_default=True,
            help="Processes of this machine or an Apache Beam pipeline; both write the same bytes.",
        ),
        click.Option(
            ["--beam-options"],
            default="",
            metavar="OPTIONS",
            help='Options of Beam, such as "--runner=FlinkRunner --flink_master=host:8081". Other '
            "machines must see the source and --out under the same absolute paths (a network "
            "disk, not gs://).",
        ),
    ]
    if cls.context_ratio is not None:
        parameters.append(
            click.Option(
                ["--context-ratio"],
                type=float,
                help="Side of the square around a labelled box, as a multiple of the box's longer "
                f"side.  [default: {cls.context_ratio}]",
            )
        )
    return parameters
