"""Validation of a config before anything is compiled."""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

from satmip_jax.errors import ConfigError

# Numbers that must lie in a range: (lowest, below what), both as a user may write them.
_RANGES: dict[str, tuple[int, int | None]] = {
    "log_every": (1, None),
    "checkpoint.every": (1, None),
    "checkpoint.keep": (1, None),
    "eval.every": (0, None),
    "eval.batch_size": (1, None),
    "eval.max_bank": (1, None),
    "data.workers": (0, None),
    "data.bad_records": (0, None),
    "metadata.depth": (1, None),
    "metadata.heads": (1, None),
    "metadata.frequencies": (0, None),
    "metadata.caption_length": (2, None),
    "metadata.field_dropout": (0, 1),
    "metadata.attention_dropout": (0, 1),
    "metadata.ffn_dropout": (0, 1),
    "method.metadata_weight": (0, None),
    "optimizer.images": (0, None),
    "optimizer.epochs": (0, None),
    "optimizer.warmup_epochs": (0, None),
    "optimizer.weight_decay": (0, None),
    "optimizer.clip_norm": (0, None),
}


def validate(config: ConfigDict) -> None:
    """Raise ConfigError where values cannot work, before anything is compiled."""
    from satmip_jax.metadata.fields import select_fields
    from satmip_jax.metadata.schema import MAX_CENTRES
    from satmip_jax.models import METADATA_ENCODERS, parse_vit
    from satmip_jax.objectives import EXCHANGES, LOSSES, METHODS

    def require(condition: bool, message: str) -> None:
        if not condition:
            raise ConfigError(message)

    optimizer = config.optimizer
    require(
        config.method.name in METHODS,
        f"config.method.name is {config.method.name!r}; choose one of {', '.join(METHODS)}",
    )
    require(
        config.metadata.encoder in METADATA_ENCODERS,
        f"config.metadata.encoder is {config.metadata.encoder!r}; choose one of "
        f"{', '.join(METADATA_ENCODERS)}",
    )
    for key, choice, choices in (
        ("dtype", config.dtype, ("float32", "bfloat16")),
        ("method.loss", config.method.loss, LOSSES),
        ("parallel.exchange", config.parallel.exchange, EXCHANGES),
    ):
        require(
            choice in choices, f"config.{key} is {choice!r}; choose one of {', '.join(choices)}"
        )
    require(
        config.parallel.micro_batch >= 0,
        f"config.parallel.micro_batch is {config.parallel.micro_batch}; it must be 0 or more",
    )
    require(
        optimizer.batch_size >= 2,
        f"config.optimizer.batch_size is {optimizer.batch_size}; "
        "a contrastive loss needs at least 2 images",
    )
    require(
        2 <= config.method.geo_clusters <= MAX_CENTRES,
        f"config.method.geo_clusters is {config.method.geo_clusters}; "
        f"it must be from 2 to {MAX_CENTRES}",
    )
    require(
        optimizer.images > 0 or optimizer.epochs > 0,
        "training has no length: set config.optimizer.epochs or config.optimizer.images",
    )
    for key, (low, high) in _RANGES.items():
        value: Any = config
        for part in key.split("."):
            value = value[part]
        limits = f"at least {low}" if high is None else f"from {low} to below {high}"
        require(
            value >= low and (high is None or value < high),
            f"config.{key} is {value}; it must be {limits}",
        )
    for key in ("optimizer.learning_rate", "method.temperature", "method.logit_scale_init"):
        section, name = key.split(".")
        value = config[section][name]
        require(value > 0, f"config.{key} is {value}; it must be above 0")
    require(
        config.image.pool in ("cls", "mean"),
        f"config.image.pool is {config.image.pool!r}; choose cls or mean",
    )
    require(
        config.metadata.width % config.metadata.heads == 0,
        f"config.metadata.width is {config.metadata.width}, not a multiple of "
        f"config.metadata.heads, {config.metadata.heads}",
    )
    try:
        select_fields(config.metadata.fields)
        patch = parse_vit(config.image.encoder)[1]
    except ValueError as error:
        raise ConfigError(str(error)) from error
    require(
        config.image.size % patch == 0,
        f"config.image.size is {config.image.size}, not a multiple of the patch size {patch} "
        f"of {config.image.encoder!r}",
    )
