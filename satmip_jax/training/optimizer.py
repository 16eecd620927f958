"""AdamW with warm-up, cosine schedule and weight decay of matrices."""

from __future__ import annotations

from typing import Any

import jax
import optax
from ml_collections import ConfigDict

from satmip_jax.config.training_length import segments
from satmip_jax.models import parameter_roles


def decays(params: Any) -> Any:
    """Return which parameters weight decay applies to, as a tree of bools: matrices only.

    Not to norms, biases, tokens, embeddings and the tokenizer.

    Source: Gorishniy et al. 2021 (FT-Transformer); Mu et al. 2022 (SLIP).

    Raises:
        ValueError: a parameter without a role, see `models.parameter_roles`.
    """
    return jax.tree.map(lambda role: role == "matrix", parameter_roles(params))


def make_schedule(config: ConfigDict, examples: int) -> optax.Schedule:
    """Return the learning rate, step -> rate: linear warm-up to the peak, then a cosine to 0.

    An extension warms up to the same peak again, and decays over the steps that it adds.

    Args:
        config: of the run.
        examples: images in the train split, which give the length of an epoch.

    Raises:
        ConfigError: see `training_length.segments`.

    Source:
        Ibrahim et al. 2024, "Simple and scalable strategies to continually pre-train large language
        models", for the extensions.
    """
    optimizer, parts = config.optimizer, segments(config, examples)

    def schedule(steps: int) -> optax.Schedule:
        # NOTE[DIFF] SLIP warms up for one epoch; a short run for at most a tenth of its length.
        warmup = int(min(optimizer.warmup_epochs * examples / optimizer.batch_size, steps / 10))
        return optax.warmup_cosine_decay_schedule(
            0.0 if warmup else optimizer.learning_rate, optimizer.learning_rate, warmup, steps
        )

    schedules = [schedule(end - start) for start, end in parts]
    starts = [start for start, _ in parts[1:]]
    return optax.join_schedules(schedules, starts) if starts else schedules[0]


def make_optimizer(
    config: ConfigDict, examples: int
) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """Return AdamW and its learning-rate schedule, step -> rate.

    Args:
        config: of the run.
        examples: images in the train split, which give the length of an epoch.
    """
    optimizer, schedule = config.optimizer, make_schedule(config, examples)
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
