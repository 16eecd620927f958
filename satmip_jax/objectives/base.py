"""Base class of pretraining methods, and the forward pass that their losses call."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Float32, Key, PyTree, Shaped

from satmip_jax.distributed.sharding import BATCH
from satmip_jax.metadata.schema import Schema
from satmip_jax.models import Head
from satmip_jax.models.layers import fold_in
from satmip_jax.objectives.options import MethodOptions
from satmip_jax.objectives.scores import Scores

Scalars = dict[str, Float[Array, ""]]


@dataclass(frozen=True)
class Forward:
    """The towers with their parameters and the randomness of one step.

    Attributes:
        towers: the `models.Towers`.
        params: their parameters.
        keys: one key per example of the global batch. Everything random about an example is drawn
            from its key, so neither the number of devices nor `micro_batch` changes a result.
        draw: (stored images (b, ...), keys (b,), number of the view) -> that view of each image,
            (b, s, s, 3) float32, normalized.
        mesh: devices over which the batch is sharded.
        schema: of the data that the towers were built for.
        exchange: how losses exchange embeddings between devices, a key of `EXCHANGES`.
        micro_batch: examples per device that are encoded at once, see `encode`; 0 for all.
    """

    towers: Any
    params: PyTree
    keys: Key[Array, " batch"]
    draw: Callable[[Array, Array, int], Array]
    mesh: Mesh
    schema: Schema
    exchange: str = "gather"
    micro_batch: int = 0

    def images(
        self, images: Shaped[Array, "batch ..."], views: Iterable[int]
    ) -> list[Float32[Array, "batch width"]]:
        """Draw views of the stored images and encode all of them in one forward pass.

        Args:
            images: as stored.
            views: numbers of the views.

        Returns:
            The features of each view.
        """
        numbers = tuple(views)

        def encode(images: Array, keys: Array) -> Array:
            drawn = [self.draw(images, keys, view) for view in numbers]
            # interleaved, image by image: rows stay on their device
            stacked = jnp.stack(drawn, axis=1).reshape(-1, *drawn[0].shape[1:])
            features = self.apply("encode_image", stacked)
            return features.reshape(images.shape[0], len(drawn), -1)

        features = self.encode(encode, images)
        return [features[:, i] for i in range(len(numbers))]

    def metadata(
        self, metadata: dict[str, Shaped[Array, "batch ..."]]
    ) -> Float32[Array, "batch width"]:
        """Encode the metadata of a batch, see `metadata.tabular.encode` for the arrays."""

        def encode(metadata: dict[str, Array], keys: Array) -> Array:
            return self.apply("encode_metadata", metadata, fold_in(keys, 0))

        return self.encode(encode, metadata)

    def encode(
        self,
        function: Callable[[Any, Array], Array],
        inputs: PyTree[Shaped[Array, "batch ..."]],
    ) -> Shaped[Array, "batch ..."]:
        """Apply `function(inputs, keys)` to the batch, `micro_batch` rows per device at a time.

        With micro-batches, the forward pass keeps only the features. The loss and its gradient by
        the features are those of the global batch; the backward pass then encodes each micro-batch
        again. This needs the memory of one micro-batch, takes a third more time, and gives exactly
        the gradient of the global batch. Accumulated gradients, in contrast, have only the
        negatives of a micro-batch.

        Source: Gao et al. 2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited
        Setup" (gradient caching), here as recomputation in a loop.
        """
        batch, devices = self.keys.shape[0], self.mesh.size
        parts = batch // devices // self.micro_batch if self.micro_batch else 1
        if parts <= 1:
            return function(inputs, self.keys)

        def split(x: Array) -> Array:
            # (B, ...) -> (parts, B / parts, ...), the rows of every device split in `parts`
            x = x.reshape(devices, parts, -1, *x.shape[1:])
            return jnp.swapaxes(x, 0, 1).reshape(parts, -1, *x.shape[3:])

        def join(x: Array) -> Array:
            x = jnp.swapaxes(x.reshape(parts, devices, -1, *x.shape[2:]), 0, 1)
            return x.reshape(batch, *x.shape[3:])

        sharding = NamedSharding(self.mesh, P(None, BATCH))

        def place(x: Array) -> Array:
            return jax.lax.with_sharding_constraint(x, sharding)

        pieces = jax.tree.map(lambda x: place(split(x)), (inputs, self.keys))
        # inside a loop nothing can undo the recomputation: it needs no barrier
        recomputed = jax.checkpoint(function, prevent_cse=False)
        return join(place(jax.lax.map(lambda piece: recomputed(*piece), pieces)))

    def head(
        self, name: str, features: Sequence[Float[Array, "batch width"]]
    ) -> list[Float32[Array, "batch out"]]:
        """Project the features of each view with one head.

        Args:
            name: a key of `Method.heads`.
            features: one array per view.

        Returns:
            The projections of each view. Batch statistics are those of all views together.

        NOTE[DIFF] SLIP takes the statistics of each view separately; SimCLR, as here, of both.
        """
        batch = features[0].shape[0]
        stacked = jnp.stack(list(features), axis=1).reshape(batch * len(features), -1)
        out = self.apply("head", name, stacked).reshape(batch, len(features), -1)
        return [out[:, i] for i in range(len(features))]

    def apply(self, method: str, *args: Any, **kwargs: Any) -> Array:
        """Call a method of the towers with the parameters."""
        return self.towers.apply({"params": self.params}, *args, **kwargs, method=method)


class Method(ABC):
    """A pretraining method: its views, heads, losses and options.

    A new method is a subclass in a file of its own, and one line in `METHODS`. It implements
    `heads` and `losses`, and overrides what differs from the defaults here.

    Args:
        options: the method's options, of the type `options_class`.
        fields: the metadata fields of the run, as in `config.metadata.fields`.

    Attributes:
        title: its name in reports.
        options_class: declares its options; they become keys of `config.method`.
        views: image views that a step draws.
        metadata_view: number of the view whose crop the metadata follows; None if the method does
            not use metadata.
        joint_heads: names of the heads that embed images and metadata in one space, in this order;
            None if there is no such space. Reports retrieve one by the other in it.
        logit_scale_init: initial value of the learned inverse temperature, `Towers.logit_scale`;
            None if the method learns none.
        logit_bias_init: initial value of the learned bias, `Towers.logit_bias`; None if the method
            learns none.

    Example:
        A method of two views with one head and one contrastive loss::

            class TwoViews(Method):
                title = "TwoViews"
                views = 2

                def heads(self, schema):
                    return {"projector": Head("image", "linear", out=128, views=2)}

                def scores(self, batch_size):
                    return {"two_views": Scores.among_views(batch_size, width=128)}

                def losses(self, forward, batch):
                    features = forward.images(batch["image"], [0, 1])
                    first, second = forward.head("projector", features)
                    loss, metrics = nt_xent(first, second, 0.1, forward.mesh, forward.exchange)
                    return {"two_views": loss}, {"two_views_accuracy": metrics["accuracy"]}
    """

    title: ClassVar[str]
    options_class: ClassVar[type[MethodOptions]] = MethodOptions

    views: int = 1
    metadata_view: int | None = None
    joint_heads: tuple[str, str] | None = None
    logit_scale_init: float | None = None
    logit_bias_init: float | None = None

    def __init__(self, options: MethodOptions, fields: str = "all") -> None:
        self.options, self.fields = options, fields

    @abstractmethod
    def heads(self, schema: Schema) -> dict[str, Head]:
        """Return the heads by name, for data of this schema.

        Raises:
            ConfigError: the method cannot be trained on this data.
        """

    @abstractmethod
    def losses(self, forward: Forward, batch: dict[str, Any]) -> tuple[Scalars, Scalars]:
        """Compute the losses of a batch.

        Args:
            forward: the towers.
            batch: "image", the stored images, uint8 (B, S, S, 3); "label", int32 (B,), -1 if
                unknown; and "metadata", a dict of arrays that already follow the crop of
                `metadata_view`.

        Returns:
            The losses, whose sum is minimized, by name; and other metrics to be logged.
        """

    def scores(self, batch_size: int) -> dict[str, Scores]:
        """Return the score matrix of each contrastive loss, by the name of the loss.

        The log, FLOPs and memory are computed from it. Empty if all heads predict something.

        Args:
            batch_size: of the global batch, in images.
        """
        del batch_size
        return {}

    @property
    def needs_geo_clusters(self) -> bool:
        """Whether the method needs `Schema.geo_centres` for its fields."""
        return False

    def planning_schema(self, schema: Schema) -> Schema:
        """Return the schema to plan a run with, before the run has computed its geo clusters.

        Args:
            schema: of the prepared data.
        """
        return schema

    def negatives(self, batch_size: int) -> dict[str, int]:
        """Return the true number of negatives per anchor of each contrastive loss."""
        return {name: scores.negatives for name, scores in self.scores(batch_size).items()}

    def encodes_metadata(self, schema: Schema) -> bool:
        """Whether a head takes the output of a metadata encoder."""
        heads = self.heads(self.planning_schema(schema))
        return any(head.input == "metadata" for head in heads.values())
