"""The length of a training in steps, and its parts if it was extended."""

from __future__ import annotations

import itertools
import math

from ml_collections import ConfigDict

from satmip_jax.errors import ConfigError


def total_steps(config: ConfigDict, examples: int) -> int:
    """Return the number of steps that `config.optimizer` sets for `examples` training images."""
    optimizer = config.optimizer
    images = optimizer.images or optimizer.epochs * examples
    return max(1, math.ceil(images / optimizer.batch_size))


def segments(config: ConfigDict, examples: int) -> list[tuple[int, int]]:
    """Return the first step and the end of the training as planned at first, and of each extension.

    Each has a learning-rate schedule of its own, see `training.optimizer`.

    Args:
        config: of the run.
        examples: images in the train split, which give the length of an epoch.

    Raises:
        ConfigError: `config.optimizer.extended_from` does not rise from above 0 to below the length
            of the training.

    Example:
        >>> from satmip_jax.config.conversion import vary
        >>> from satmip_jax.config.training_length import segments
        >>> changes = {"optimizer.images": 1600, "optimizer.extended_from": (40, 60)}
        >>> segments(vary(config, changes), examples=64)  # batches of 16
        [(0, 40), (40, 60), (60, 100)]
    """
    extended, total = config.optimizer.extended_from, total_steps(config, examples)
    parts = list(itertools.pairwise((0, *extended, total)))
    if not all(start < end for start, end in parts):
        raise ConfigError(
            f"config.optimizer.extended_from is {extended}: its steps must rise, from above 0 to "
            f"below the length of the training, {total} steps"
        )
    return parts
