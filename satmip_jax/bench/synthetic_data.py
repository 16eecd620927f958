"""Synthetic images for benchmarks that run without prepared data."""

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


def draw_scenes(folder: Path, images: int, size: int) -> Source:
    """Draw synthetic scenes.

    Args:
        folder: where to write them.
        images: number of scenes.
        size: shorter side of a scene, pixels, at least.
    """
    return open_source("synthetic", [folder / "scenes"], train=images, val=0, size=size)


def draw_shards(folder: Path, images: int, size: int, copies: int = 1) -> ShardDataset:
    """Draw scenes and prepare them as shards.

    Small data sets, below a few thousand records, shuffle slower than real ones (grain draws
    numbers up to 2^16 until one is small enough). Copies make a data set larger.

    Args:
        folder: where to write.
        images: number of scenes.
        size: side of the squares, pixels.
        copies: number of copies of each scene.
    """
    drawn, linked = folder / "drawn", folder / "shards"
    scenes = draw_scenes(folder, images, size)
    prepare(scenes, drawn, image_size=size, shard_size=images, name="scenes")
    linked.mkdir()
    for copy in range(copies):
        os.link(
            drawn / shard_file("scenes", "train", 0, 1),
            linked / shard_file("scenes", "train", copy, copies),
        )
    schema = Schema.load(drawn / SCHEMA_FILE)
    replace(schema, splits={"train": images * copies}).save(linked / SCHEMA_FILE)
    return ShardDataset(linked, "train")
