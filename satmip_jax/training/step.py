"""Training step: views, losses, gradients and update in one jitted function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import Mesh
from ml_collections import ConfigDict

from satmip_jax.augmentation.config import AugmentConfig
from satmip_jax.augmentation.views import augment, crops, keys_of_images, normalize
from satmip_jax.config.training_length import total_steps
from satmip_jax.distributed.sharding import (
    batch_sharding,
    check_batch_size,
    replicated,
    shapes_with_shardings,
)
from satmip_jax.distributed.target import Target
from satmip_jax.metadata import tabular
from satmip_jax.metadata.schema import Schema
from satmip_jax.models import Towers, build_towers, init_params
from satmip_jax.models.layers import fold_in
from satmip_jax.objectives import Forward, Method, build_method
from satmip_jax.training.optimizer import make_optimizer

PyTree = Any
Loss = Callable[[PyTree, dict[str, Any], Array], tuple[Array, dict[str, Array]]]


@jax.tree_util.register_dataclass
@dataclass
class TrainState:
    """State that a step updates.

    Attributes:
        step: number of completed steps, which is also the position in the data; () int32.
        params: parameters of the towers, float32.
        opt_state: state of the optimizer.
    """

    step: Array
    params: PyTree
    opt_state: PyTree


def init_state(
    config: ConfigDict,
    towers: Towers,
    tx: optax.GradientTransformation,
    schema: Schema,
    mesh: Mesh,
) -> tuple[PyTree, Callable[[], TrainState]]:
    """Describe the initial state, without allocating it.

    Args:
        config: gives the seed.
        towers: to be trained.
        tx: the optimizer.
        schema: of the data.
        mesh: over which the state is sharded.

    Returns:
        The state's shapes, dtypes and shardings; and a jitted function that returns the state.
    """

    def init() -> TrainState:
        params = init_params(config, towers, schema)
        return TrainState(jnp.zeros((), jnp.int32), params, tx.init(params))

    abstract = shapes_with_shardings(jax.eval_shape(init), mesh)
    return abstract, jax.jit(init, out_shardings=jax.tree.map(lambda x: x.sharding, abstract))


def augmentation(config: ConfigDict) -> AugmentConfig:
    """Return the parameters of the views from `config.augment` and `config.image.size`."""
    return AugmentConfig(size=config.image.size, **config.augment.to_dict())


def make_loss(
    config: ConfigDict, towers: Towers, method: Method, schema: Schema, mesh: Mesh
) -> Loss:
    """Return `loss(params, batch, key) -> (total, metrics)`; its inputs are on the devices.

    Args:
        config: of the run.
        towers: whose parameters the loss takes.
        method: of the config.
        schema: of the data.
        mesh: over which the batch is sharded.
    """
    views = augmentation(config)
    dtype = Target.of(mesh).view_dtype(config.dtype)

    def draw(images: Array, keys: Array, view: int) -> Array:
        with jax.named_scope("views"):
            pixels, _ = augment(view_keys(keys, view), images, views, dtype)
            return normalize(pixels, schema.image_mean, schema.image_std)

    def loss(params: PyTree, batch: dict[str, Any], key: Array) -> tuple[Array, dict[str, Array]]:
        keys = keys_of_images(key, batch["label"].shape[0])
        if method.metadata_view is not None and config.metadata.follow_crop:
            crop = crops(view_keys(keys, method.metadata_view), batch["image"].shape[1], views)
            metadata = tabular.follow_crop(
                batch["metadata"], crop, schema.image_size, config.image.size
            )
            batch = batch | {"metadata": metadata}
        forward = Forward(
            towers,
            params,
            keys,
            draw,
            mesh,
            schema,
            exchange=config.parallel.exchange,
            micro_batch=config.parallel.micro_batch,
        )
        losses, metrics = method.losses(forward, batch)
        total = sum(losses.values(), start=jnp.zeros((), jnp.float32))
        return total, metrics | {f"{name}_loss": value for name, value in losses.items()}

    return loss


def view_keys(keys: Array, view: int) -> Array:
    """Return the keys (b,) from which view number `view` of each example is drawn."""
    return fold_in(keys, 2 + view)  # 0: see Forward.metadata


def make_train_step(
    config: ConfigDict,
    towers: Towers,
    method: Method,
    schema: Schema,
    tx: optax.GradientTransformation,
    schedule: optax.Schedule,
    mesh: Mesh,
    abstract: PyTree,
) -> Callable[[TrainState, dict[str, Any]], tuple[TrainState, dict[str, Array]]]:
    """Return the jitted step `(state, batch) -> (state, metrics)`, which donates `state`.

    The key of step n is `fold_in(key(seed), n)`: a run is a function of config, seed and data, and
    resumes exactly.

    Args:
        config: of the run.
        towers: to be trained.
        method: of the config.
        schema: of the data.
        tx: the optimizer.
        schedule: of its learning rate, which is logged.
        mesh: over which batch and state are sharded.
        abstract: shapes and shardings of the state, from `init_state`.
    """
    loss_fn = make_loss(config, towers, method, schema, mesh)
    key = jax.random.key(config.seed)

    def step(state: TrainState, batch: dict[str, Any]) -> tuple[TrainState, dict[str, Array]]:
        step_key = jax.random.fold_in(key, state.step)
        (loss, metrics), grads = jax.value_and_grad(loss_fn, has_aux=True)(
            state.params, batch, step_key
        )
        with jax.named_scope("optimizer"):
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

    state_sharding = jax.tree.map(lambda x: x.sharding, abstract)
    return jax.jit(
        step,
        in_shardings=(state_sharding, batch_sharding(mesh)),
        out_shardings=(state_sharding, replicated(mesh)),
        donate_argnums=0,
    )


@dataclass(frozen=True)
class Program:
    """A config, built for a data set and a mesh; nothing is compiled or allocated yet.

    Attributes:
        config: of the run.
        schema: of the data.
        mesh: over which batch and state are sharded.
        method: of the config.
        towers: of the method.
        steps: length of the training.
        abstract: shapes, dtypes and shardings of the state.
        init: returns the initial state.
        step: the jitted `(state, batch) -> (state, metrics)`, which donates the state.
    """

    config: ConfigDict
    schema: Schema
    mesh: Mesh
    method: Method
    towers: Towers
    steps: int
    abstract: PyTree
    init: Callable[[], TrainState]
    step: Callable[[TrainState, dict[str, Any]], tuple[TrainState, dict[str, Array]]]


def build_program(config: ConfigDict, schema: Schema, examples: int, mesh: Mesh) -> Program:
    """Build the training of a config.

    Args:
        config: of the run.
        schema: of the data, see `setup.run_schema`.
        examples: images in the train split.
        mesh: over which batch and state are sharded.

    Raises:
        ConfigError: the batch cannot be divided among the devices or into micro-batches, or the
            method cannot be trained on this data.

    Example:
        >>> from satmip_jax.data.shard_dataset import ShardDataset
        >>> from satmip_jax.distributed.sharding import make_mesh
        >>> from satmip_jax.training.step import build_program
        >>> dataset = ShardDataset(shards, "train")
        >>> program = build_program(config, dataset.schema, len(dataset), make_mesh())
        >>> int(program.init().step), program.steps
        (0, 4)
    """
    batch_size, micro_batch = config.optimizer.batch_size, config.parallel.micro_batch
    check_batch_size(batch_size, mesh.size, micro_batch)
    method = build_method(config)
    towers = build_towers(config, schema, method, Target.of(mesh, config.parallel.gradient_dtype))
    tx, schedule = make_optimizer(config, examples)
    abstract, init = init_state(config, towers, tx, schema, mesh)
    step = make_train_step(config, towers, method, schema, tx, schedule, mesh, abstract)
    steps = total_steps(config, examples)
    return Program(config, schema, mesh, method, towers, steps, abstract, init, step)
