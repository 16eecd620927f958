"""Commands that use trained models."""

from __future__ import annotations

import click

from satmip_jax.runtime.commands import LocalPath


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
