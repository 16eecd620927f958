"""The command `satmip bench representations`; nothing heavy is imported before it runs."""

from __future__ import annotations

import click


@click.command("representations")
@click.argument("model", type=str)
@click.option("--data", required=True, help="Prepared folder with labels.")
@click.option(
    "--init",
    type=click.Choice(["trained", "random"]),
    default="trained",
    show_default=True,
    help="Parameters of the encoder.",
)
@click.option("--protocols", default="knn5,linear", show_default=True, help="Joined by commas.")
@click.option(
    "--block", type=click.FloatRange(0), default=0.0, show_default=True, help="See evaluate."
)
def bench_representations(model: str, data: str, init: str, protocols: str, block: float) -> None:
    """Compare which vector of the metadata encoder of MODEL to probe."""
    from satmip_jax.bench import representations
    from satmip_jax.evaluation.loading import load_model
    from satmip_jax.evaluation.protocols import check_protocols
    from satmip_jax.evaluation.results import print_scores

    names = check_protocols(protocols.split(","))
    loaded = load_model(model, init=init)
    print_scores(representations.bench(loaded, data, protocols=names, block=block))
