"""The subcommands of `satmip bench`; nothing heavy is imported before one runs."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import click


@click.group()
def bench() -> None:
    """Measure speed and memory; what is compared runs side by side."""


@bench.command("loss")
@click.option("--rows", default="1024,4096", show_default=True, help="Global batches.")
@click.option("--width", default=512, show_default=True, help="Of the embeddings.")
@click.option("--losses", default="info_nce,nt_xent,sigmoid", show_default=True)
@click.option("--rounds", default=3, show_default=True, help="Of timing; 0: memory alone.")
@click.option("--devices", type=click.IntRange(1), help="So many virtual CPU devices.")
@click.option("--out", type=click.Path(dir_okay=False), help="Append JSON Lines to this file.")
def bench_loss(
    rows: str, width: int, losses: str, rounds: int, devices: int | None, out: str | None
) -> None:
    """Naive formula, gather and ring: temporary memory of a device and time of a pair."""
    from rich.console import Console

    from satmip_jax.bench import loss, timing
    from satmip_jax.planning import memory
    from satmip_jax.planning.dry_run import use_virtual_devices

    if devices:
        use_virtual_devices(devices)
    found = loss.bench(
        [int(n) for n in rows.split(",")],
        width=width,
        rounds=rounds,
        limit=memory.device_limit() // 3,
        losses=losses.split(","),
    )
    timing.write(found, Path(out) if out else None, Console())


@bench.command("pipeline")
@click.option("--data", type=click.Path(exists=True, file_okay=False), help="Prepared real data.")
@click.option("--split", default="train", show_default=True, help="Of --data.")
@click.option("--images", default=256, show_default=True, help="To draw where there is no --data.")
@click.option("--size", default=256, show_default=True, help="Their side, pixels.")
@click.option("--view-size", default=224, show_default=True, help="Of views made on the host.")
@click.option("--batch-size", default=64, show_default=True)
@click.option("--batches", default=32, show_default=True, help="Timed in a turn.")
@click.option("--workers", type=click.IntRange(1), help="Processes.  [default: one a core]")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--out", type=click.Path(dir_okay=False), help="Append JSON Lines to this file.")
def bench_pipeline(
    data: str | None,
    split: str,
    images: int,
    size: int,
    view_size: int,
    batch_size: int,
    batches: int,
    workers: int | None,
    rounds: int,
    out: str | None,
) -> None:
    """Images a second on the device: this loader, decoding alone, PyTorch's where it is."""
    from tempfile import TemporaryDirectory

    from rich.console import Console

    from satmip_jax.bench import pipeline, synthetic_data, timing, torch_loader
    from satmip_jax.data.shard_dataset import ShardDataset
    from satmip_jax.runtime import process_pool

    if not torch_loader.installed():
        click.echo("PyTorch and torchvision are not installed: their loaders are left out")
    with TemporaryDirectory() as folder:
        dataset = (
            ShardDataset(data, split)
            if data
            else synthetic_data.draw_shards(Path(folder), images, size, copies=16)
        )
        job = pipeline.Job(dataset, batch_size, batches, workers or process_pool.cores(), view_size)
        timing.write(pipeline.bench(job, rounds), Path(out) if out else None, Console())


@bench.command("prepare")
@click.option("--images", default=128, show_default=True, help="Synthetic ones to draw.")
@click.option("--size", default=256, show_default=True, help="Of the squares, pixels.")
@click.option("--source-size", default=512, show_default=True, help="Of the images, pixels.")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option("--out", type=click.Path(dir_okay=False), help="Append JSON Lines to this file.")
def bench_prepare(images: int, size: int, source_size: int, rounds: int, out: str | None) -> None:
    """Images a second that one core prepares, beside OpenCV's part of the work alone."""
    from tempfile import TemporaryDirectory

    from rich.console import Console

    from satmip_jax.bench import prepare, synthetic_data, timing

    with TemporaryDirectory() as folder:
        source = synthetic_data.draw(Path(folder), images, source_size)
        found = prepare.bench(source, count=images, size=size, rounds=rounds)
    timing.write(found, Path(out) if out else None, Console())


@bench.command("augment")
@click.option("--batches", default="64,256", show_default=True, help="Images of a batch.")
@click.option("--stored", default=256, show_default=True, help="Side of the images, pixels.")
@click.option("--size", default=224, show_default=True, help="Side of the views, pixels.")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option("--out", type=click.Path(dir_okay=False), help="Append JSON Lines to this file.")
def bench_augment(batches: str, stored: int, size: int, rounds: int, out: str | None) -> None:
    """Images a second of which two views are made: on the device, and by torchvision."""
    from rich.console import Console

    from satmip_jax.bench import augment, timing, torch_loader

    if not torch_loader.installed():
        click.echo("PyTorch and torchvision are not installed: they are left out")
    counts = [int(n) for n in batches.split(",")]
    found = augment.bench(counts, stored=stored, size=size, rounds=rounds)
    timing.write(found, Path(out) if out else None, Console())


@bench.command("knn")
@click.option("--banks", default="10000,50000", show_default=True, help="Rows of the bank.")
@click.option("--queries", default=1024, show_default=True)
@click.option("--widths", default="128,384", show_default=True, help="Of the features.")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option("--out", type=click.Path(dir_okay=False), help="Append JSON Lines to this file.")
def bench_knn(banks: str, queries: int, widths: str, rounds: int, out: str | None) -> None:
    """Queries a second that are classified, beside numpy and scikit-learn."""
    from rich.console import Console

    from satmip_jax.bench import knn, timing

    rows = [int(n) for n in banks.split(",")]
    found = (
        measurement
        for width in widths.split(",")
        for measurement in knn.bench(rows, queries=queries, width=int(width), rounds=rounds)
    )
    timing.write(found, Path(out) if out else None, Console())


@bench.command("startup")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option("--training/--no-training", default=True, help="Time to the first step as well.")
@click.option("--out", type=click.Path(dir_okay=False), help="Append JSON Lines to this file.")
def bench_startup(rounds: int, training: bool, out: str | None) -> None:
    """Seconds until the command answers, and until a training makes its first step."""
    from rich.console import Console

    from satmip_jax.bench import startup, timing

    timing.write(startup.bench(rounds, training=training), Path(out) if out else None, Console())


@bench.command("step", context_settings={"ignore_unknown_options": True})
@click.option("--config", required=True, metavar="FILE[:ARG]", help="Such as configs/fmow.py:s16.")
@click.option(
    "--methods",
    default="simclr,satmip,satmips",
    show_default=True,
    help="The others are compared with the first.",
)
@click.option("--rounds", default=5, show_default=True, help="How often each takes its turn.")
@click.option("--steps", default=3, show_default=True, help="Timed steps of a turn.")
@click.option("--torch", is_flag=True, help="Also the first method's step in PyTorch and timm.")
@click.option("--out", type=click.Path(dir_okay=False), help="Append JSON Lines to this file.")
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED)
def bench_step(
    config: str,
    methods: str,
    rounds: int,
    steps: int,
    torch: bool,
    out: str | None,
    overrides: tuple[str, ...],
) -> None:
    """The training step of some methods: time, FLOP/s, memory; real batches with --config.data.dir.

    Each method is measured as the config file has it for that method: FILE:ARG,METHOD.
    """
    from rich.console import Console

    from satmip_jax.bench import step, timing
    from satmip_jax.config.loading import load_method_configs

    peers: dict[str, Any] = {}
    if torch:
        try:
            from satmip_jax.bench.torch_step import TorchStep
        except ImportError as error:
            raise click.ClickException(
                f"--torch: {error.name} is not installed: pip install torch timm"
            ) from error
        peers["torch"] = partial(TorchStep, compiled=False)
        peers["torch.compile"] = partial(TorchStep, compiled=True)
    names = methods.split(",")
    recipes = load_method_configs(config, overrides, names)
    if missing := [name for name in names if name not in recipes]:
        raise click.ClickException(f"--methods: {config} has no recipe for {', '.join(missing)}")
    found = step.bench(recipes, rounds=rounds, steps=steps, peers=peers)
    timing.write(found, Path(out) if out else None, Console())


@bench.command("growth", context_settings={"ignore_unknown_options": True})
@click.option("--config", required=True, metavar="FILE[:ARG]", help="What is turned up and down.")
@click.option("--rounds", default=3, show_default=True, help="How often all take their turn.")
@click.option("--devices", type=click.IntRange(1), help="So many virtual CPU devices.")
@click.option("--plot", type=click.Path(dir_okay=False), help="Draw it: growth.png or .svg.")
@click.option("--out", type=click.Path(dir_okay=False), help="Append JSON Lines to this file.")
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED)
def bench_growth(
    config: str,
    rounds: int,
    devices: int | None,
    plot: str | None,
    out: str | None,
    overrides: tuple[str, ...],
) -> None:
    """A step's time against batch, image size, depth, number of fields and devices."""
    from rich.console import Console

    from satmip_jax.bench import scaling, timing
    from satmip_jax.config.loading import load_config
    from satmip_jax.planning.dry_run import use_virtual_devices

    if devices:
        use_virtual_devices(devices)
    measured = scaling.bench(load_config(config, overrides), rounds=rounds)
    found = timing.write(measured, Path(out) if out else None, Console())
    if plot:
        scaling.draw(found, Path(plot), f"Step time of {config}")
