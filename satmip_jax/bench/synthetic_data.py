"""Synthetic pictures for the benchmarks that are given no data."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from satmip_jax.data.shard_dataset import ShardDataset
from satmip_jax.data.shard_format import SCHEMA_FILE, shard_file
from satmip_jax.metadata.schema import Schema
from satmip_jax.prepare.run import prepare
from satmip_jax.sources.base import Source
from satmip_jax.sources.registry import open_source


def draw(folder: Path, images: int, size: int) -> Source:
    """So many scenes, whose shorter side is `size` pixels or a little more."""
    return open_source("synthetic", [folder / "scenes"], train=images, val=0, size=size)


def draw_shards(folder: Path, images: int, size: int, copies: int = 1) -> ShardDataset:
    """Shards of squares of `size` pixels: `images` scenes, each `copies` times.

    A data set of under some thousand records takes longer to shuffle than a real one (grain draws
    numbers up to 2^16 until one is small enough).
    """
    drawn, linked = folder / "drawn", folder / "shards"
    prepare(draw(folder, images, size), drawn, image_size=size, shard_size=images, name="pictures")
    linked.mkdir()
    for copy in range(copies):
        os.link(
            drawn / shard_file("pictures", "train", 0, 1),
            linked / shard_file("pictures", "train", copy, copies),
        )
    schema = Schema.load(drawn / SCHEMA_FILE)
    replace(schema, splits={"train": images * copies}).save(linked / SCHEMA_FILE)
    return ShardDataset(linked, "train")
