"""Validation of a config before anything is compiled."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from ml_collections import ConfigDict

from satmip_jax.augmentation.config import AugmentConfig, AugmentError
from satmip_jax.errors import ConfigError
from satmip_jax.metadata.fields import select_fields
from satmip_jax.models import ACTIVATIONS, METADATA_ENCODERS, parse_vit
from satmip_jax.objectives import EXCHANGES, METHODS, method_options

# Strings with a fixed set of values.
_CHOICES: dict[str, Collection[str]] = {
    "method.name": METHODS,
    "metadata.encoder": METADATA_ENCODERS,
    "image.pool": ("cls", "mean"),
    "image.activation": tuple(ACTIVATIONS),
    "parallel.exchange": EXCHANGES,
    "parallel.gradient_dtype": ("float32", "bfloat16"),
    "dtype": ("float32", "bfloat16"),
}
# Half-open ranges of numbers: (smallest value, bound below which it must stay).
_RANGES: dict[str, tuple[int, int | None]] = {
    "seed": (0, 2**32),  # JAX would take the seed modulo 2^32
    "log_every": (1, None),
    "checkpoint.every": (1, None),
    "checkpoint.keep": (1, None),
    "eval.every": (0, None),
    "eval.batch_size": (1, None),
    "eval.max_bank": (1, None),
    "data.workers": (0, None),
    "data.bad_records": (0, None),
    "image.size": (1, None),
    "metadata.width": (1, None),
    "metadata.depth": (1, None),
    "metadata.heads": (1, None),
    "metadata.frequencies": (0, None),
    "metadata.caption_length": (2, None),
    "metadata.field_dropout": (0, 1),
    "metadata.attention_dropout": (0, 1),
    "metadata.ffn_dropout": (0, 1),
    "parallel.micro_batch": (0, None),
    "optimizer.images": (0, None),
    "optimizer.epochs": (0, None),
    "optimizer.warmup_epochs": (0, None),
    "optimizer.weight_decay": (0, None),
    "optimizer.b1": (0, 1),
    "optimizer.b2": (0, 1),
    "optimizer.clip_norm": (0, None),
}
_POSITIVE = ("optimizer.learning_rate", "optimizer.eps")
SMALL_BATCH = 32  # images; smaller batches of contrastive losses get a note


def valid_values(key: str) -> str:
    """Return the valid values of an option in words; "" if only its type is checked.

    Args:
        key: "section.option"; options of methods are declared elsewhere, see `Option.limits`.

    Example:
        >>> from satmip_jax.config.validation import valid_values
        >>> valid_values("metadata.field_dropout"), valid_values("image.pool")
        ('from 0 to below 1', 'one of cls, mean')
    """
    if key in _CHOICES:
        return f"one of {', '.join(_CHOICES[key])}"
    if key in _RANGES:
        low, high = _RANGES[key]
        return f"at least {low}" if high is None else f"from {low} to below {high}"
    return "above 0" if key in _POSITIVE else ""


def validate(config: ConfigDict) -> None:
    """Check the values of a config, each on its own and together.

    Raises:
        ConfigError: a value that cannot work; the message names the option and the value, and says
            what is valid.
    """
    _check_values(config)
    for name, option in method_options().items():
        option.check(config.method[name])
    _check_training_length(config)
    _check_encoders(config)
    _check_views(config)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


def _check_values(config: ConfigDict) -> None:
    """Check each value against its choices or its range."""
    for key, choices in _CHOICES.items():
        value = _value(config, key)
        _require(value in choices, f"config.{key} is {value!r}; choose {valid_values(key)}")
    for key, (low, high) in _RANGES.items():
        value = _value(config, key)
        _require(
            value >= low and (high is None or value < high),
            f"config.{key} is {value}; it must be {valid_values(key)}",
        )
    for key in _POSITIVE:
        value = _value(config, key)
        _require(value > 0, f"config.{key} is {value}; it must be {valid_values(key)}")


def small_batch_note(batch_size: int, examples: int) -> str:
    """Return a sentence for users if the batches of a contrastive loss are small; "" if not.

    Args:
        batch_size: images in a batch.
        examples: images in the train split.

    Example:
        >>> from satmip_jax.config.validation import small_batch_note
        >>> small_batch_note(2, examples=3)
        "a batch of 2 images has few negatives: ... prepare more images"
    """
    if batch_size >= SMALL_BATCH:
        return ""
    larger = 1 << (min(examples, SMALL_BATCH).bit_length() - 1)  # a power of 2, for any devices
    raise_it = f", or set config.optimizer.batch_size={larger}" if larger > batch_size else ""
    return (
        f"a batch of {batch_size} images has few negatives: to tell an image's own pair from those "
        f"of so few others is easy and teaches little. {SMALL_BATCH} images or more are usual: "
        f"prepare more images{raise_it}"
    )


def _check_training_length(config: ConfigDict) -> None:
    """Check that there are negatives in a batch and steps to train."""
    optimizer = config.optimizer
    _require(
        optimizer.batch_size >= 2,
        f"config.optimizer.batch_size is {optimizer.batch_size}; "
        "a contrastive loss needs at least 2 images",
    )
    _require(
        optimizer.images > 0 or optimizer.epochs > 0,
        "training has no length: set config.optimizer.epochs or config.optimizer.images",
    )
    _require(
        all(type(step) is int for step in optimizer.extended_from),
        f"config.optimizer.extended_from is {optimizer.extended_from}; it must be a tuple of steps",
    )


def _check_encoders(config: ConfigDict) -> None:
    """Check that widths and sizes divide, and that names of encoders and fields exist."""
    metadata, image = config.metadata, config.image
    _require(
        metadata.width % metadata.heads == 0,
        f"config.metadata.width is {metadata.width}, not a multiple of "
        f"config.metadata.heads, {metadata.heads}",
    )
    try:
        select_fields(metadata.fields)
        patch = parse_vit(image.encoder)[1]
    except ValueError as error:
        raise ConfigError(str(error)) from error
    _require(
        image.size % patch == 0,
        f"config.image.size is {image.size}, not a multiple of the patch size {patch} "
        f"of {image.encoder!r}",
    )


def _check_views(config: ConfigDict) -> None:
    """Check the options of the views."""
    try:
        AugmentConfig(size=config.image.size, **config.augment.to_dict())
    except AugmentError as error:
        raise ConfigError(str(error).replace("AugmentConfig", "config.augment")) from error


def _value(config: ConfigDict, key: str) -> Any:
    """Value of "section.option"."""
    value: Any = config
    for part in key.split("."):
        value = value[part]
    return value
