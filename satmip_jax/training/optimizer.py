"""AdamW with warm-up and cosine decay, and which parameters weight decay applies to."""

from __future__ import annotations

import math

import optax
from ml_collections import ConfigDict

from satmip_jax.models import decays


def total_steps(config: ConfigDict, examples: int) -> int:
    """Number of steps that `config.optimizer` asks for on `examples` training images."""
    optimizer = config.optimizer
    images = optimizer.images or optimizer.epochs * examples
    return max(1, math.ceil(images / optimizer.batch_size))


def make_optimizer(
    config: ConfigDict, examples: int
) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """AdamW with warm-up and cosine; norms, biases, tokens and embeddings are not decayed."""
    optimizer, steps = config.optimizer, total_steps(config, examples)
    # NOTE[DIFF] SLIP warms up for one epoch; a short run for at most a tenth of its length.
    warmup = int(min(optimizer.warmup_epochs * examples / optimizer.batch_size, steps / 10))
    schedule = optax.warmup_cosine_decay_schedule(
        0.0 if warmup else optimizer.learning_rate, optimizer.learning_rate, warmup, steps
    )
    adamw = optax.adamw(
        schedule,
        b1=optimizer.b1,
        b2=optimizer.b2,
        eps=optimizer.eps,
        weight_decay=optimizer.weight_decay,
        mask=decays,
    )
    if optimizer.clip_norm:
        adamw = optax.chain(optax.clip_by_global_norm(optimizer.clip_norm), adamw)
    return adamw, schedule
