"""One training step: views, losses, gradients, update, in one jitted and donated function."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from satmip_jax import augment, parallel
from satmip_jax.metadata import tabular
from satmip_jax.models import Towers, decays, example_batch
from satmip_jax.objectives import Forward, Method

Array = jax.Array
PyTree = Any


@jax.tree_util.register_dataclass
@dataclass
class TrainState:
    """What a step changes. The step number is also the position in the data."""

    step: Array  # () int32
    params: PyTree  # float32
    opt_state: PyTree


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


def init_state(
    config: ConfigDict,
    towers: Towers,
    tx: optax.GradientTransformation,
    schema: tabular.Schema,
    mesh: Mesh,
) -> tuple[PyTree, Callable[[], TrainState]]:
    """Return the abstract state, with shardings, and a jitted function that makes the real one."""

    def init() -> TrainState:
        params = towers.init(jax.random.key(config.seed), *example_batch(config, schema))["params"]
        return TrainState(jnp.zeros((), jnp.int32), params, tx.init(params))

    sharding = parallel.replicated(mesh)
    abstract = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), jax.eval_shape(init)
    )
    return abstract, jax.jit(init, out_shardings=sharding)


def augmentation(config: ConfigDict) -> augment.AugmentConfig:
    """The static description of the views that `config` asks for."""
    return augment.AugmentConfig(size=config.image.size, **config.augment.to_dict())


def make_loss(
    config: ConfigDict, towers: Towers, method: Method, schema: tabular.Schema, mesh: Mesh
) -> Callable[[PyTree, dict[str, Any], Array], tuple[Array, dict[str, Array]]]:
    """Return `loss(params, batch, key) -> (total, metrics)`, all on the device."""
    views_config = augmentation(config)

    def loss(params: PyTree, batch: dict[str, Any], key: Array) -> tuple[Array, dict[str, Array]]:
        views, crops = [], []
        for view in range(method.views):
            pixels, crop = augment.augment(
                jax.random.fold_in(key, view), batch["image"], views_config
            )
            views.append(augment.normalize(pixels, schema.image_mean, schema.image_std))
            crops.append(crop)
        metadata = batch["metadata"]
        if method.metadata_view is not None and config.metadata.follow_crop:
            metadata = tabular.follow_crop(
                metadata, crops[method.metadata_view], schema.image_size, config.image.size
            )
        forward = Forward(towers, params, jax.random.fold_in(key, method.views), mesh, schema)
        losses, metrics = method.losses(forward, views, batch | {"metadata": metadata})
        total = sum(losses.values(), start=jnp.zeros((), jnp.float32))
        return total, metrics | {f"{name}_loss": value for name, value in losses.items()}

    return loss


def make_train_step(
    config: ConfigDict,
    towers: Towers,
    method: Method,
    schema: tabular.Schema,
    tx: optax.GradientTransformation,
    schedule: optax.Schedule,
    mesh: Mesh,
) -> Callable[[TrainState, dict[str, Any]], tuple[TrainState, dict[str, Array]]]:
    """Return the jitted step `(state, batch) -> (state, metrics)`; it takes `state` over.

    The randomness of step n is `fold_in(key(seed), n)`: a run is a function of (config, seed,
    data) and resumes exactly.
    """
    loss_fn = make_loss(config, towers, method, schema, mesh)
    key = jax.random.key(config.seed)

    def step(state: TrainState, batch: dict[str, Any]) -> tuple[TrainState, dict[str, Array]]:
        step_key = jax.random.fold_in(key, state.step)
        (loss, metrics), grads = jax.value_and_grad(loss_fn, has_aux=True)(
            state.params, batch, step_key
        )
        with jax.numpy_dtype_promotion("standard"):  # optax counts steps in int32
            updates, opt_state = tx.update(grads, state.opt_state, state.params)
            learning_rate = jnp.asarray(schedule(state.step), jnp.float32)
        params = towers.constrain(optax.apply_updates(state.params, updates))
        metrics |= {
            "loss": loss,
            "grad_norm": optax.tree.norm(grads),
            "learning_rate": learning_rate,
        }
        return TrainState(state.step + 1, params, opt_state), metrics

    everywhere = parallel.replicated(mesh)
    return jax.jit(
        step,
        in_shardings=(everywhere, parallel.batch_sharding(mesh)),
        out_shardings=everywhere,
        donate_argnums=0,
    )
