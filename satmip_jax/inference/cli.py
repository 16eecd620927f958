"""Commands that use trained models."""

from __future__ import annotations

import click

from satmip_jax.runtime.commands import LocalPath, interruption_explained


@click.command()
@click.argument("model", type=LocalPath())
@click.option(
    "--format",
    type=click.Choice(["safetensors", "timm", "stablehlo"]),
    default="safetensors",
    show_default=True,
    help="The whole model, the image encoder for timm, or the image encoder as a program.",
)
@click.option("--out", type=LocalPath(), required=True, help="New or empty folder for the files.")
@click.option("--half", is_flag=True, help="Store float16, in half the space.")
@click.option(
    "--licence", default="", help="Licence of the weights for the card, such as apache-2.0."
)
def export(model: str, format: str, out: str, half: bool, licence: str) -> None:
    """Export MODEL, a workdir or an exported folder, with a model card.

    The folder has the layout of the Hugging Face hub; nothing is uploaded.
    """
    from satmip_jax.inference.export import export

    for file in export(model, out, format=format, half=half, licence=licence):
        click.echo(f"{file} {file.stat().st_size:,} bytes")


@click.command()
@click.argument("embeddings", type=LocalPath(exists=True, dir_okay=False))
@click.option("--model", help="Model that made EMBEDDINGS; not needed for --id without --image.")
@click.option(
    "--image",
    "images",
    multiple=True,
    type=LocalPath(exists=True, dir_okay=False),
    help="Image to compare with; several stand for their mean.",
)
@click.option(
    "--id", "ids", multiple=True, metavar="ID", help="Row of EMBEDDINGS to compare with, likewise."
)
@click.option(
    "--where",
    multiple=True,
    metavar="TERMS",
    help="Metadata: `month=7 latitude=60` describes what is sought, `==`, `!=`, `<` and others "
    "filter rows. Also JSON, or @FILE with either.",
)
@click.option(
    "--count",
    type=click.IntRange(1, 100_000),
    default=10,
    show_default=True,
    help="Rows to find.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@click.option(
    "--out",
    type=LocalPath(dir_okay=False),
    help="Write the rows to a .json, .csv or .parquet file.",
)
@click.option(
    "--page",
    type=LocalPath(dir_okay=False),
    help="Write an HTML page with thumbnails to this file.",
)
def search(
    embeddings: str,
    model: str | None,
    images: tuple[str, ...],
    ids: tuple[str, ...],
    where: tuple[str, ...],
    count: int,
    as_json: bool,
    out: str | None,
    page: str | None,
) -> None:
    """Find the rows of EMBEDDINGS, a file of `satmip embed`, that are most similar to a query."""
    from satmip_jax.inference.search import search
    from satmip_jax.inference.search_output import (
        print_results,
        to_json,
        write_of_suffix,
        write_results,
    )
    from satmip_jax.inference.search_page import write_search_page

    if out:
        write_of_suffix(out)  # refuses another suffix before anything is searched
    with interruption_explained("interrupted: give the same command again"):
        results = search(
            embeddings,
            model=model,
            images=images,
            ids=ids,
            where=where,
            count=count,
            progress=True,
        )
        if as_json:
            click.echo(to_json(results))
        else:
            print_results(results)
        if out:
            write_results(results, out)
        if page:
            write_search_page(results, page)
    for path in filter(None, (out, page)):
        click.echo(f"{path} written", err=True)
