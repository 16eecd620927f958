"""`satmip bench embed`; nothing heavy is imported before it runs."""

from __future__ import annotations

import click

from satmip_jax.bench.options import out_option, rounds_option, write
from satmip_jax.runtime.commands import LocalPath


@click.command("embed")
@click.argument("inputs", nargs=-1, required=True, type=LocalPath(exists=True))
@click.option("--model", required=True, help="Model, as for `satmip embed`.")
@click.option("--batch-size", type=click.IntRange(1), help="Images encoded at once.")
@click.option("--torch", "with_torch", is_flag=True, help="Compare with a loop of timm.")
@rounds_option(3)
@out_option
def bench_embed(
    inputs: tuple[str, ...],
    model: str,
    batch_size: int | None,
    with_torch: bool,
    rounds: int,
    out: str | None,
) -> None:
    """Measure `satmip embed` and its parts, beside timm on the same weights."""
    import satmip_jax
    from satmip_jax.bench import embed

    loaded = satmip_jax.load(model, batch_size=batch_size)
    rival = None
    if with_torch:
        try:
            from satmip_jax.bench.torch_embed import TimmLoop
        except ImportError as error:
            raise click.ClickException(
                f'--torch needs PyTorch and timm: pip install "satmip-jax[oracle]" ({error})'
            ) from error
        rival = TimmLoop(model, loaded.batch_size)
    write(embed.bench(loaded, inputs, rounds=rounds, rival=rival), out)
