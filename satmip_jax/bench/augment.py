"""Two views of images: made on the device by `augmentation.views`, on the host by torchvision."""

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
from satmip_jax.bench.timing import Measurement, in_turn, spread

HOST_IMAGES = 16  # one after another, so that a batch would say no more


def bench(batches: Sequence[int], *, stored: int, size: int, rounds: int) -> list[Measurement]:
    """Measure two views of `size` pixels of images of `stored` pixels, in batches of each size.

    What crop alone takes is part of the others: views are always cut.
    """
    rng = np.random.default_rng(0)
    found = []
    for batch in batches:
        pixels = rng.integers(0, 256, (batch, stored, stored, 3), np.uint8)
        images = jax.device_put(pixels)
        jax.block_until_ready(images)
        functions: dict[str, Callable[[], Any]] = {
            name: partial(two_views, jax.random.key(0), images, cfg)
            for name, cfg in configs(size).items()
        }
        counts = dict.fromkeys(functions, batch)
        if torch_loader.installed():
            functions["torchvision, one core"] = _torchvision(pixels[:HOST_IMAGES], size)
            counts["torchvision, one core"] = min(batch, HOST_IMAGES)
        for name, seconds in in_turn(functions, rounds).items():
            rates = [counts[name] / second for second in seconds]
            facts = {"batch": batch, "stored": stored, "size": size}
            found.append(
                Measurement("augment", name, "rate", unit="images/s", facts=facts, **spread(rates))
            )
    return found


def configs(size: int) -> dict[str, AugmentConfig]:
    """The views by what is done to them."""
    crop = AugmentConfig(size, jitter_p=0.0, grey_p=0.0, blur_p=0.0)
    every = AugmentConfig(size)
    return {
        "crop": crop,
        "crop, jitter": replace(crop, jitter_p=every.jitter_p),
        "crop, blur": replace(crop, blur_p=every.blur_p),
        "all": every,
    }


@partial(jax.jit, static_argnames="cfg")
def two_views(key: jax.Array, images: jax.Array, cfg: AugmentConfig) -> tuple[jax.Array, ...]:
    """As training makes them: both views of a batch in one program."""
    first, second = jax.random.split(key)
    return augment(first, images, cfg)[0], augment(second, images, cfg)[0]


def _torchvision(pixels: np.ndarray, size: int) -> Callable[[], None]:
    import torch
    from PIL import Image

    transform = torch_loader.simclr(size)
    pictures = [Image.fromarray(image) for image in pixels]

    def views() -> None:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # as a DataLoader's worker has it
        for picture in pictures:
            transform(picture)
            transform(picture)
        torch.set_num_threads(threads)

    return views
