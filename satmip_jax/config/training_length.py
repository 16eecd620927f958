"""The length of a training in steps."""

from __future__ import annotations

import math

from ml_collections import ConfigDict


def total_steps(config: ConfigDict, examples: int) -> int:
    """Return the number of steps that `config.optimizer` sets for `examples` training images."""
    optimizer = config.optimizer
    images = optimizer.images or optimizer.epochs * examples
    return max(1, math.ceil(images / optimizer.batch_size))
