"""Random numbers of the views: every image has its own, for every purpose."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, Key

CROP, ORIENTATION, JITTER, GREY, BLUR = range(5)  # the purposes


def uniform(
    keys: Key[Array, " batch"], purpose: int, numbers: int
) -> Float32[Array, "batch {numbers}"]:
    """Return numbers in [0, 1) for each image.

    Args:
        keys: one per image.
        purpose: one of the constants of this module; each gets numbers of its own.
        numbers: how many per image.
    """

    def one(key: Array) -> Array:
        return jax.random.uniform(jax.random.fold_in(key, purpose), (numbers,), jnp.float32)

    return jax.vmap(one)(keys)
