"""The subcommands of `satmip bench`; nothing heavy is imported before one runs."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import click

from satmip_jax.bench.embed_cli import bench_embed
from satmip_jax.bench.options import (
    devices_option,
    out_option,
    parse_numbers,
    rounds_option,
    write,
)
from satmip_jax.bench.representations_cli import bench_representations
from satmip_jax.runtime.commands import LocalPath, config_option


@click.group()
def bench() -> None:
    """Measure speed and memory, side by side with alternatives."""


bench.add_command(bench_embed)
bench.add_command(bench_representations)


@bench.command("loss")
@click.option(
    "--rows",
    callback=parse_numbers,
    default="1024,4096",
    show_default=True,
    help="Global batch sizes, pairs of embeddings.",
)
@click.option(
    "--width",
    type=click.IntRange(1),
    default=512,
    show_default=True,
    help="Width of the embeddings.",
)
@click.option(
    "--losses",
    default="info_nce,nt_xent,sigmoid",
    show_default=True,
    help="Losses to measure, joined by commas.",
)
@rounds_option(3, least=0)
@devices_option
@out_option
def bench_loss(
    rows: list[int], width: int, losses: str, rounds: int, devices: int | None, out: str | None
) -> None:
    """Compare memory and time of all-gather, ring exchange and the naive formula."""
    from satmip_jax.bench import loss
    from satmip_jax.planning import memory
    from satmip_jax.planning.dry_run import use_virtual_devices

    names = losses.split(",")
    if unknown := [name for name in names if name not in loss.LOSSES]:
        raise click.ClickException(
            f"--losses: unknown loss {', '.join(unknown)}; choose from {', '.join(loss.LOSSES)}"
        )
    if devices:
        use_virtual_devices(devices)
    limit = memory.device_limit() // 3
    write(loss.bench(rows, width=width, rounds=rounds, limit=limit, losses=names), out)


@bench.command("pipeline")
@click.option(
    "--data",
    type=LocalPath(exists=True, file_okay=False),
    help="Prepared data to load.  [default: synthetic images]",
)
@click.option("--split", default="train", show_default=True, help="Split of --data.")
@click.option(
    "--images",
    type=click.IntRange(1),
    default=256,
    show_default=True,
    help="Number of synthetic images to draw, without --data.",
)
@click.option(
    "--size",
    type=click.IntRange(8),
    default=256,
    show_default=True,
    help="Side of the synthetic images, pixels.",
)
@click.option(
    "--view-size",
    type=click.IntRange(8),
    default=224,
    show_default=True,
    help="Side of views made on the host by torchvision, pixels.",
)
@click.option(
    "--batch-size",
    type=click.IntRange(1),
    default=64,
    show_default=True,
    help="Images per batch.",
)
@click.option(
    "--batches",
    type=click.IntRange(1),
    default=32,
    show_default=True,
    help="Timed batches per round.",
)
@click.option(
    "--workers", type=click.IntRange(1), help="Worker processes.  [default: one per core]"
)
@rounds_option(3)
@out_option
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
    """Compare the throughput of this loader, decoding only, and PyTorch's DataLoader."""
    from tempfile import TemporaryDirectory

    from satmip_jax.bench import pipeline, synthetic_data, torch_loader
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
        write(pipeline.bench(job, rounds), out)


@bench.command("prepare")
@click.option(
    "--images",
    type=click.IntRange(1),
    default=128,
    show_default=True,
    help="Number of synthetic images to draw.",
)
@click.option(
    "--size",
    type=click.IntRange(8),
    default=256,
    show_default=True,
    help="Side of the squares, pixels.",
)
@click.option(
    "--source-size",
    type=click.IntRange(8),
    default=512,
    show_default=True,
    help="Shorter side of the images, pixels.",
)
@rounds_option(5)
@out_option
def bench_prepare(images: int, size: int, source_size: int, rounds: int, out: str | None) -> None:
    """Measure the preparation of images on one core, beside the OpenCV calls alone."""
    from tempfile import TemporaryDirectory

    from satmip_jax.bench import prepare, synthetic_data

    with TemporaryDirectory() as folder:
        source = synthetic_data.draw_scenes(Path(folder), images, source_size)
        measurements = prepare.bench(source, count=images, size=size, rounds=rounds)
    write(measurements, out)


@bench.command("augment")
@click.option(
    "--batches",
    callback=parse_numbers,
    default="64,256",
    show_default=True,
    help="Batch sizes, images.",
)
@click.option(
    "--stored",
    type=click.IntRange(8),
    default=256,
    show_default=True,
    help="Side of the images, pixels.",
)
@click.option(
    "--size",
    type=click.IntRange(8),
    default=224,
    show_default=True,
    help="Side of the views, pixels.",
)
@rounds_option(5)
@out_option
def bench_augment(batches: list[int], stored: int, size: int, rounds: int, out: str | None) -> None:
    """Compare the augmentation of two views per image on the device and by torchvision."""
    from satmip_jax.bench import augment, torch_loader

    if not torch_loader.installed():
        click.echo("PyTorch and torchvision are not installed: they are left out")
    write(augment.bench(batches, stored=stored, size=size, rounds=rounds), out)


@bench.command("knn")
@click.option(
    "--banks",
    callback=parse_numbers,
    default="10000,50000",
    show_default=True,
    help="Numbers of rows of the bank.",
)
@click.option(
    "--queries",
    type=click.IntRange(1),
    default=1024,
    show_default=True,
    help="Number of queries.",
)
@click.option(
    "--widths",
    callback=parse_numbers,
    default="128,384",
    show_default=True,
    help="Widths of the features.",
)
@rounds_option(5)
@out_option
def bench_knn(
    banks: list[int], queries: int, widths: list[int], rounds: int, out: str | None
) -> None:
    """Compare kNN classification on the device with numpy and scikit-learn."""
    from satmip_jax.bench import knn

    measurements = (
        measurement
        for width in widths
        for measurement in knn.bench(banks, queries=queries, width=width, rounds=rounds)
    )
    write(measurements, out)


@bench.command("startup")
@click.option(
    "--training/--no-training",
    default=True,
    show_default=True,
    help="Measure the time to the first training step as well.",
)
@rounds_option(5)
@out_option
def bench_startup(rounds: int, training: bool, out: str | None) -> None:
    """Measure the start-up time of commands, and the time to the first training step."""
    from satmip_jax.bench import startup

    write(startup.bench(rounds, training=training), out)


@bench.command("step", context_settings={"ignore_unknown_options": True})
@config_option
@click.option(
    "--methods",
    default="simclr,satmip,satmips",
    show_default=True,
    help="Methods to measure, joined by commas; the first is the reference.",
)
@rounds_option(5)
@click.option(
    "--steps",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    help="Timed steps per round.",
)
@click.option("--torch", is_flag=True, help="Compare with SimCLR's step in PyTorch and timm.")
@out_option
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
    """Measure the training step of methods: time, FLOP/s, memory, host overhead, input stall.

    Each method has its own recipe, if the config file has one (FILE:ARG,METHOD). Batches are real
    with --config.data.dir=FOLDER, and noise with --config.data.dir= (empty).
    """
    from satmip_jax.bench import step
    from satmip_jax.config.loading import load_method_configs

    peers: dict[str, Any] = {}
    if torch:
        try:
            from satmip_jax.bench.torch_step import TorchStep
        except ImportError as error:
            raise click.ClickException(
                f"--torch: {error.name} is not installed; run: pip install torch timm"
            ) from error
        peers["torch"] = partial(TorchStep, compiled=False)
        peers["torch.compile"] = partial(TorchStep, compiled=True)
    names = methods.split(",")
    configs = load_method_configs(config, overrides, names)
    if missing := [name for name in names if name not in configs]:
        raise click.ClickException(f"--methods: {config} has no recipe for {', '.join(missing)}")
    write(step.bench(configs, rounds=rounds, steps=steps, peers=peers), out)


@bench.command("kernels", context_settings={"ignore_unknown_options": True})
@config_option
@click.option(
    "--steps", type=click.IntRange(1), default=5, show_default=True, help="Steps to trace."
)
@click.option(
    "--top",
    type=click.IntRange(1),
    default=40,
    show_default=True,
    help="Kernels to list; the others are summed.",
)
@click.option("--trace", type=LocalPath(file_okay=False), help="Folder to keep the trace in.")
@out_option
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED)
def bench_kernels(
    config: str,
    steps: int,
    top: int,
    trace: str | None,
    out: str | None,
    overrides: tuple[str, ...],
) -> None:
    """List the kernels of a training step on noise by time, from a trace of the JAX profiler."""
    from satmip_jax.bench import kernels
    from satmip_jax.config.loading import load_config

    loaded = load_config(config, overrides)
    folder = Path(trace) if trace else None
    write(kernels.bench(loaded, steps=steps, top=top, folder=folder), out)


@bench.command("scaling", context_settings={"ignore_unknown_options": True})
@click.option(
    "--config",
    required=True,
    metavar="FILE[:ARG]",
    help="Base config, such as configs/eurosat.py:satmips,cpu.",
)
@rounds_option(3)
@devices_option
@click.option(
    "--plot", type=LocalPath(dir_okay=False), help="Figure to write, such as scaling.png or .svg."
)
@out_option
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED)
def bench_scaling(
    config: str,
    rounds: int,
    devices: int | None,
    plot: str | None,
    out: str | None,
    overrides: tuple[str, ...],
) -> None:
    """Measure the step time against batch size, image side, depth, fields and devices."""
    from satmip_jax.bench import scaling
    from satmip_jax.config.loading import load_config
    from satmip_jax.planning.dry_run import use_virtual_devices

    if devices:
        use_virtual_devices(devices)
    measurements = write(scaling.bench(load_config(config, overrides), rounds=rounds), out)
    if plot:
        scaling.draw(measurements, Path(plot), f"Step time of {config}")
