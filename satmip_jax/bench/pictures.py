"""Synthetic pictures for the benchmarks that are given no data."""

from __future__ import annotations

from pathlib import Path

from satmip_jax.prepare import prepare
from satmip_jax.shards import ShardDataset
from satmip_jax.sources import Source, open_source


def draw(folder: Path, images: int, size: int) -> Source:
    """So many scenes, whose shorter side is `size` pixels or a little more."""
    return open_source("synthetic", [folder / "scenes"], train=images, val=0, size=size)


def draw_shards(folder: Path, images: int, size: int) -> ShardDataset:
    """The same as shards of squares of `size` pixels."""
    prepare(draw(folder, images, size), folder / "shards", image_size=size)
    return ShardDataset(folder / "shards", "train")
