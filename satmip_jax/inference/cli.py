"""Commands that use trained models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from satmip_jax.pretrained import copy_examples
from satmip_jax.runtime.commands import LocalPath, PathOrUrl, interruption_explained
from satmip_jax.runtime.paths import as_path, file_size
from satmip_jax.runtime.stores import check_access


@click.command()
@click.argument("model")
@click.option(
    "--format",
    type=click.Choice(["safetensors", "timm", "stablehlo", "onnx"]),
    default="safetensors",
    show_default=True,
    help="The whole model, the image encoder for timm, or the image encoder as a program.",
)
@click.option("--out", type=PathOrUrl(), required=True, help="New or empty folder for the files.")
@click.option("--half", is_flag=True, help="Store float16, in half the space.")
@click.option(
    "--licence", default="", help="Licence of the weights for the card, such as apache-2.0."
)
def export(model: str, format: str, out: str, half: bool, licence: str) -> None:
    """Export MODEL, a workdir, an exported folder or a shipped model, with a model card.

    The folder has the layout of the Hugging Face hub; nothing is uploaded.
    """
    from satmip_jax.inference.export.run import export

    for file in export(model, out, format=format, half=half, licence=licence):
        click.echo(f"{file} {file_size(file):,} bytes")


@click.command()
@click.argument("embeddings", type=PathOrUrl(exists=True, dir_okay=False))
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
@click.option(
    "--index",
    type=LocalPath(dir_okay=False),
    help="Search approximately by the index in this file, which is built if there is none.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@click.option(
    "--out",
    type=PathOrUrl(dir_okay=False),
    help="Write the rows to a .json, .csv or .parquet file.",
)
@click.option(
    "--page",
    type=PathOrUrl(dir_okay=False),
    help="Write an HTML page with thumbnails to this file.",
)
def search(
    embeddings: str,
    model: str | None,
    images: tuple[str, ...],
    ids: tuple[str, ...],
    where: tuple[str, ...],
    count: int,
    index: str | None,
    as_json: bool,
    out: str | None,
    page: str | None,
) -> None:
    """Find the rows of EMBEDDINGS, a file of `satmip embed`, that are most similar to a query."""
    from satmip_jax.inference.search.output import (
        print_results,
        to_json,
        write_of_suffix,
        write_results,
    )
    from satmip_jax.inference.search.page import write_search_page
    from satmip_jax.inference.search.run import search

    if out:
        write_of_suffix(out)  # refuses another suffix before anything is searched
    for path in filter(None, (out, page)):
        check_access(as_path(path))
    with interruption_explained("interrupted: give the same command again"):
        results = search(
            embeddings,
            model=model,
            images=images,
            ids=ids,
            where=where,
            count=count,
            index=index,
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


@click.command()
@click.argument("inputs", nargs=-1, required=True, type=LocalPath())
@click.option("--model", required=True, help="Workdir, exported folder or name of a shipped model.")
@click.option(
    "--out",
    required=True,
    type=PathOrUrl(),
    help="GeoParquet file to write, such as embeddings.parquet.",
)
@click.option(
    "--source",
    type=click.Choice(["images", "geotiff", "folder", "stac"]),
    help="Read all inputs as this source of `satmip prepare`.  [default: as detected]",
)
@click.option("--metadata", type=LocalPath(), help="Table of metadata: CSV, JSON or Parquet.")
@click.option(
    "--columns",
    help="Columns of the table, such as path=file,location=lon+lat; see `satmip prepare folder`.",
)
@click.option(
    "--dates",
    type=click.Choice(["auto", "day-first", "month-first"]),
    help="Order of dates such as 06/07/2017 in the table.  [default: auto]",
)
@click.option(
    "--cloud-cover",
    type=click.Choice(["auto", "percent", "fraction"]),
    help="Unit of the cloud cover in the table.  [default: auto]",
)
@click.option(
    "--classes",
    type=click.Choice(["none", "folders"]),
    help="With folders, the folder of an image is its label.  [default: none]",
)
@click.option("--tile", type=int, help="Cut TIFFs into tiles of this side, pixels.")
@click.option("--stride", type=int, help="Distance between tiles.  [default: their side]")
@click.option(
    "--min-data",
    type=float,
    help="Minimum share of pixels with data in a tile, 0 to 1; tiles without any are left out.",
)
@click.option("--asset", help="Key or role of the asset of STAC items.  [default: visual]")
@click.option("--label", help="Property of STAC items that is their label.")
@click.option("--bands", metavar="R,G,B", help="Bands shown as red, green and blue, such as 4,3,2.")
@click.option(
    "--scale",
    metavar="LOW,HIGH|percentile",
    help="Scale values that are not 8-bit: LOW and HIGH become 0 and 255; percentile takes the 2nd "
    "and 98th percentile of each image.  [default: leave such images out]",
)
@click.option(
    "--batch-size",
    type=click.IntRange(1),
    help="Images encoded at once.  [default: 32 per CPU device, else that of the evaluation]",
)
@click.option(
    "--workers",
    type=click.IntRange(0),
    help="Processes that read images; 0 reads in threads.  [default: 0 on CPUs, else one per core]",
)
def embed(
    inputs: tuple[str, ...],
    model: str,
    out: str,
    source: str | None,
    bands: str | None,
    scale: str | None,
    batch_size: int | None,
    workers: int | None,
    **options: Any,
) -> None:
    """Embed images and their metadata to one GeoParquet file.

    INPUTS are images, folders, zips, tables with paths, GeoTIFFs and STAC catalogues or items, in
    any mixture. Inputs that cannot be used are named and left out. The same command resumes an
    interrupted run.
    """
    import satmip_jax
    from satmip_jax.inference.embed.run import embed_files
    from satmip_jax.runtime import compilation_cache

    compilation_cache.enable()
    with interruption_explained(
        f"interrupted. Finished parts in {out}.parts are kept: the same command resumes"
    ):
        report = embed_files(
            satmip_jax.load(model, batch_size=batch_size),
            inputs,
            out,
            options={name: value for name, value in options.items() if value is not None},
            source=source,
            bands=bands,
            scale=scale,
            workers=workers,
            announce=click.echo,
        )
    for line in report.lines():
        click.echo(line)


@click.command()
@click.argument("images", nargs=-1, required=True, type=LocalPath())
@click.option("--model", required=True, help="Workdir, exported folder or name of a shipped model.")
@click.option(
    "--region",
    metavar="W,S,E,N",
    help="Search here, degrees.  [default: where the training data lie; all land without a "
    "calibration]",
)
@click.option("--cell", default=0.5, show_default=True, help="Side of the cells, degrees.")
@click.option(
    "--prior",
    type=click.Choice(["train", "uniform"]),
    help="Density of the training's places, or the same for every km2 of land.  [default: train "
    "with a calibration, else uniform]",
)
@click.option(
    "--top", type=click.IntRange(1, 100), default=5, show_default=True, help="Number of places."
)
@click.option("--map", "map_file", type=PathOrUrl(dir_okay=False), help="Draw maps to this PNG.")
@click.option("--geojson", type=PathOrUrl(dir_okay=False), help="Write places and cells here.")
@click.option(
    "--json",
    "json_file",
    is_flag=False,
    flag_value="-",
    type=PathOrUrl(dir_okay=False, allow_dash=True),
    help="Write the result as JSON to this file, or instead of the tables to stdout.",
)
def locate(images: tuple[str, ...], model: str, **options: Any) -> None:
    """Find where, when and by which sensor IMAGES may have been taken.

    Probabilities are calibrated if `satmip calibrate` has run. Images that cannot be used are
    named; the exit status is 1 if there are any.
    """
    from satmip_jax.inference.locate import locate_files

    with interruption_explained("interrupted: no file was written"):
        raise SystemExit(0 if locate_files(model, images, **options) else 1)


@click.command()
@click.argument("model")
@click.option("--data", required=True, help="Folder written by `satmip prepare`.")
@click.option("--split", default="val", show_default=True, help="Split to fit and score on.")
@click.option("--out", help="File to write.  [default: locate.json in the folder of MODEL]")
@click.option("--diagram", type=PathOrUrl(dir_okay=False), help="Draw reliability to this PNG.")
def calibrate(model: str, data: str, split: str, out: str | None, diagram: str | None) -> None:
    """Calibrate the probabilities that `satmip locate` states by MODEL.

    Fits on one half of the split, chosen by cells of one degree, and prints scores of the other
    half beside those of baselines.
    """
    from satmip_jax.inference.locate import calibrate_model

    with interruption_explained("interrupted: nothing was written"):
        click.echo(f"wrote {calibrate_model(model, data, split, out, diagram)}")


@click.command()
@click.option(
    "--examples",
    type=LocalPath(file_okay=False),
    metavar="FOLDER",
    help="Copy 20 Sentinel-2 chips to this folder instead, to try the models on.",
)
def models(examples: str | None) -> None:
    """List the models that come with this package; their names are accepted as MODEL."""
    if examples:
        click.echo(f"{len(copy_examples(Path(examples)))} images in {examples}")
        return

    from rich.console import Console

    from satmip_jax.inference.shipped import shipped_models

    Console().print(shipped_models())
