"""Throughput of two augmented views: on the device, and by torchvision on the host."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import numpy as np

from satmip_jax.augmentation.config import AugmentConfig
from satmip_jax.augmentation.views import augment
from satmip_jax.bench import torch_loader
from satmip_jax.bench.timing import Measurement, over_rounds, time_in_turn

HOST_IMAGES = 16  # torchvision takes one image at a time, so the batch size does not matter


def bench(batches: Sequence[int], *, stored: int, size: int, rounds: int) -> list[Measurement]:
    """Measure the augmentation of images to two views each.

    Every variant includes the crop.

    Args:
        batches: batch sizes, images.
        stored: side of the images, pixels.
        size: side of the views, pixels.
        rounds: rounds of timing.
    """
    rng = np.random.default_rng(0)
    measurements = []
    for batch in batches:
        pixels = rng.integers(0, 256, (batch, stored, stored, 3), np.uint8)
        images = jax.device_put(pixels)
        jax.block_until_ready(images)
        functions: dict[str, Callable[[], Any]] = {
            name: partial(two_views, jax.random.key(0), images, config)
            for name, config in configs(size).items()
        }
        counts = dict.fromkeys(functions, batch)
        if torch_loader.installed():
            functions["torchvision, one core"] = _torchvision(pixels[:HOST_IMAGES], size)
            counts["torchvision, one core"] = min(batch, HOST_IMAGES)
        facts = {"batch": batch, "stored": stored, "size": size}
        for name, seconds in time_in_turn(functions, rounds).items():
            rates = over_rounds([counts[name] / second for second in seconds])
            measurements.append(
                Measurement("augment", name, "throughput", unit="images/s", facts=facts, **rates)
            )
    return measurements


def configs(size: int) -> dict[str, AugmentConfig]:
    """Return augmentations by name: the crop alone, with one operation, and with all."""
    crop = AugmentConfig(size, jitter_p=0.0, grey_p=0.0, blur_p=0.0)
    every = AugmentConfig(size)
    return {
        "crop": crop,
        "crop, jitter": replace(crop, jitter_p=every.jitter_p),
        "crop, blur": replace(crop, blur_p=every.blur_p),
        "all": every,
    }


@partial(jax.jit, static_argnames="config")
def two_views(
    key: jax.Array, images: jax.Array, config: AugmentConfig
) -> tuple[jax.Array, jax.Array]:
    """Draw both views of a batch in one program, as in training.

    Args:
        key: random key.
        images: uint8 (batch, stored, stored, 3).
        config: the augmentation.

    Returns:
        Two arrays (batch, size, size, 3).
    """
    first, second = jax.random.split(key)
    return augment(first, images, config)[0], augment(second, images, config)[0]


def _torchvision(pixels: np.ndarray, size: int) -> Callable[[], None]:
    import torch
    from PIL import Image

    transform = torch_loader.simclr(size)
    pictures = [Image.fromarray(image) for image in pixels]

    def views() -> None:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # as in a worker of a DataLoader
        for picture in pictures:
            transform(picture)
            transform(picture)
        torch.set_num_threads(threads)

    return views
