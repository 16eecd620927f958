"""Supervised classification: what the encoder can reach with labels, as an upper bound."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from satmip_jax.errors import ConfigError
from satmip_jax.metadata.schema import Schema
from satmip_jax.objectives.base import Array, Forward


class Supervised:
    """Cross-entropy of a linear classifier; images without a label (-1) do not count."""

    views = 1
    metadata_view = None

    def __init__(self, config: ConfigDict) -> None:
        del config

    def heads(self, schema: Schema) -> dict[str, tuple[Any, ...]]:
        if len(schema.classes) < 2:
            raise ConfigError(
                f"method 'supervised' needs labels, and {schema.name!r} has "
                f"{len(schema.classes)} classes: prepare it with labels or choose another method"
            )
        return {"classifier": ("linear", len(schema.classes))}

    def negatives(self, batch_size: int) -> dict[str, int]:
        return {}

    def losses(
        self, forward: Forward, batch: dict[str, Any]
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        (logits,) = forward.head("classifier", forward.images(batch["image"], [0]))
        label = batch["label"]
        known = (label >= 0).astype(jnp.float32)
        count = jnp.maximum(jnp.sum(known), 1.0)
        log_p = jax.nn.log_softmax(logits.astype(jnp.float32))
        chosen = jnp.take_along_axis(log_p, jnp.maximum(label, 0)[:, None], axis=1)[:, 0]
        right = (jnp.argmax(log_p, axis=1) == label).astype(jnp.float32)
        loss = -jnp.sum(known * chosen) / count
        return {"supervised": loss}, {"supervised_accuracy": jnp.sum(known * right) / count}
