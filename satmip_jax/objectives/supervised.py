"""Supervised classification: the upper bound that the encoder reaches with labels."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from satmip_jax.errors import ConfigError
from satmip_jax.metadata.schema import Schema
from satmip_jax.models import Head
from satmip_jax.objectives.base import Forward, Method, Scalars


class Supervised(Method):
    """Cross-entropy of a linear classifier; images without a label (-1) do not count."""

    title = "Supervised"

    def heads(self, schema: Schema) -> dict[str, Head]:
        """Return a linear classifier.

        Raises:
            ConfigError: the data has fewer than two classes.
        """
        if len(schema.classes) < 2:
            raise ConfigError(
                f"method 'supervised' needs labels, and {schema.name!r} has "
                f"{len(schema.classes)} classes: prepare it with labels or choose another method"
            )
        return {"classifier": Head("image", "linear", out=len(schema.classes))}

    def losses(self, forward: Forward, batch: dict[str, Any]) -> tuple[Scalars, Scalars]:
        """Compute "supervised", the cross-entropy over labelled images, and the accuracy."""
        (logits,) = forward.head("classifier", forward.images(batch["image"], [0]))
        label = batch["label"]
        labelled = (label >= 0).astype(jnp.float32)
        count = jnp.maximum(jnp.sum(labelled), 1.0)
        log_p = jax.nn.log_softmax(logits.astype(jnp.float32))
        chosen = jnp.take_along_axis(log_p, jnp.maximum(label, 0)[:, None], axis=1)[:, 0]
        correct = (jnp.argmax(log_p, axis=1) == label).astype(jnp.float32)
        loss = -jnp.sum(labelled * chosen) / count
        return {"supervised": loss}, {"supervised_accuracy": jnp.sum(labelled * correct) / count}
