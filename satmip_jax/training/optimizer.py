"""AdamW with warm-up, cosine schedule and weight decay of matrices."""

from __future__ import annotations

from typing import Any

import jax
import optax
from ml_collections import ConfigDict

from satmip_jax.config.training_length import total_steps
from satmip_jax.models import parameter_roles


def decays(params: Any) -> Any:
    """Return which parameters weight decay applies to, as a tree of bools: matrices only.

    Not to norms, biases, tokens, embeddings and the tokenizer.

    Source: Gorishniy et al. 2021 (FT-Transformer); Mu et al. 2022 (SLIP).

    Raises:
        ValueError: a parameter without a role, see `models.parameter_roles`.
    """
    return jax.tree.map(lambda role: role == "matrix", parameter_roles(params))


def make_optimizer(
    config: ConfigDict, examples: int
) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """Return AdamW and its learning-rate schedule, step -> rate.

    Args:
        config: of the run.
        examples: images in the train split, which give the length of an epoch.
    """
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
