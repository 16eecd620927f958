"""The towers that a pretraining method trains: image encoder, metadata encoder and heads."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Key, Shaped
from ml_collections import ConfigDict

from satmip_jax.distributed.target import Target
from satmip_jax.metadata import caption, tabular
from satmip_jax.metadata.fields import FIELDS, field
from satmip_jax.metadata.record import Metadata
from satmip_jax.metadata.schema import Schema
from satmip_jax.models.ft_transformer import FTTransformer
from satmip_jax.models.heads import Head, build_head
from satmip_jax.models.text_transformer import TextTransformer
from satmip_jax.models.vit import ViT, vit

MetadataArrays = Mapping[str, Shaped[Array, "batch ..."]]  # see `tabular.encode`, and "caption"

MAX_LOG_SCALE = math.log(100.0)  # Radford et al. 2021


class TabularTower(nn.Module):
    """FT-Transformer over the fields.

    Attributes:
        schema: of the data.
        fields: names of the fields it takes in.
        frequencies: of the location on the sphere.
        transformer: the encoder of the fields' features.
    """

    schema: Schema
    fields: tuple[str, ...]
    frequencies: int
    transformer: FTTransformer

    def __call__(
        self, metadata: MetadataArrays, keys: Key[Array, " batch"] | None = None
    ) -> Float32[Array, "batch width"]:
        """Encode the metadata of a batch; see `Towers.encode_metadata`."""
        fields = tuple(map(field, self.fields))
        arrays = dict(metadata)
        features = tabular.featurize(arrays, self.schema, fields, self.frequencies)
        position, column = tabular.field_index(), tabular.category_index()
        chosen = [position[name] for name in self.fields]
        ids = [column[name] for name in self.fields if name in column]
        return self.transformer(
            features,
            arrays["categories"][:, np.array(ids, np.int32)],
            arrays["present"][:, np.array(chosen, np.int32)],
            keys,
        )


class TextTower(nn.Module):
    """Transformer over the caption. In training, fields are shuffled and some are dropped.

    Attributes:
        fields: names of the fields it takes in.
        length: of the caption, in tokens.
        field_dropout: probability that a field is dropped.
        transformer: the encoder of the tokens.
    """

    fields: tuple[str, ...]
    length: int
    field_dropout: float
    transformer: TextTransformer

    def __call__(
        self, metadata: MetadataArrays, keys: Key[Array, " batch"] | None = None
    ) -> Float32[Array, "batch width"]:
        """Encode the metadata of a batch; see `Towers.encode_metadata`."""
        position = tabular.field_index()
        chosen = [position[name] for name in self.fields]
        fragments = metadata["caption"][:, np.array(chosen, np.int32)]
        if keys is None:
            return self.transformer(caption.assemble(fragments, length=self.length))

        def one(fragments: Array, key: Array) -> Array:
            (tokens,) = caption.assemble(
                fragments[None], key, length=self.length, dropout=self.field_dropout, shuffle=True
            )
            return tokens

        return self.transformer(jax.vmap(one)(fragments, keys))


def _tabular(config: ConfigDict, schema: Schema, dtype: Any, target: Target | None) -> nn.Module:
    del target  # too few tokens for a fused kernel to pay off
    fields = schema.select_fields(config.fields)
    names = tuple(field.name for field in fields)
    transformer = FTTransformer(
        width=config.width,
        depth=config.depth,
        heads=config.heads,
        fields=names,
        vocabulary_sizes={
            field.name: len(schema.fields[field.name].vocabulary)
            for field in fields
            if field.kind.has_vocabulary
        },
        field_dropout=config.field_dropout,
        attention_dropout=config.attention_dropout,
        ffn_dropout=config.ffn_dropout,
        dtype=dtype,
    )
    return TabularTower(schema, names, config.frequencies, transformer)


def _text(config: ConfigDict, schema: Schema, dtype: Any, target: Target | None) -> nn.Module:
    names = tuple(field.name for field in schema.select_fields(config.fields))
    # no longer than the longest caption of the selected fields: padding costs as much as text
    length = min(config.caption_length, caption.max_length(len(names)))
    transformer = TextTransformer(
        width=config.width,
        depth=config.depth,
        heads=config.heads,
        vocab_size=caption.VOCAB_SIZE,
        length=length,
        target=target,
        dtype=dtype,
    )
    return TextTower(names, length, config.field_dropout, transformer)


# A new metadata encoder is one file in this folder and one line here.
METADATA_ENCODERS = {"tabular": _tabular, "text": _text}


class Towers(nn.Module):
    """Image encoder, metadata encoder and heads, and the learned scale and bias of logits.

    Attributes:
        image_encoder: (b, s, s, 3) -> (b, D).
        metadata_encoder: metadata arrays -> (b, M); None if no head takes its output.
        heads: name -> projection.
        head_inputs: name -> the encoder whose output the head takes, "image" or "metadata".
        logit_scale_init: initial inverse temperature; None: not learned.
        logit_bias_init: initial bias; None: not learned.
    """

    image_encoder: nn.Module
    metadata_encoder: nn.Module | None
    heads: Mapping[str, nn.Module]
    head_inputs: Mapping[str, str]
    logit_scale_init: float | None = None
    logit_bias_init: float | None = None

    @property
    def has_metadata(self) -> bool:
        """Whether there is a metadata encoder."""
        return self.metadata_encoder is not None

    def setup(self) -> None:
        """Create the parameters that belong to no encoder or head."""
        if self.logit_scale_init is not None:
            start = nn.initializers.constant(math.log(self.logit_scale_init))
            self.log_scale = self.param("log_scale", start, (), jnp.float32)
        if self.logit_bias_init is not None:
            constant = nn.initializers.constant(self.logit_bias_init)
            self.bias = self.param("logit_bias", constant, (), jnp.float32)

    def encode_image(
        self, images: Float[Array, "batch height width 3"]
    ) -> Float32[Array, "batch features"]:
        """Encode normalized images."""
        return self.image_encoder(images)

    def encode_metadata(
        self, metadata: MetadataArrays, keys: Key[Array, " batch"] | None = None
    ) -> Float32[Array, "batch features"]:
        """Encode metadata.

        Args:
            metadata: the arrays of `tabular.encode`, and "caption" for a text encoder.
            keys: in training one per record, from which what is dropped of it is drawn; None to
                drop nothing.

        Raises:
            ValueError: there is no metadata encoder.
        """
        if self.metadata_encoder is None:
            raise ValueError("this method has no metadata encoder")
        return self.metadata_encoder(metadata, keys)

    def head(
        self, name: str, features: Float[Array, "batch features"]
    ) -> Float32[Array, "batch out"]:
        """Project features with one head."""
        return self.heads[name](features)

    def logit_scale(self) -> Float32[Array, ""]:
        """Return the learned inverse temperature."""
        return jnp.exp(self.log_scale)

    def logit_bias(self) -> Float32[Array, ""]:
        """Return the learned bias of the logits."""
        return self.bias

    def __call__(
        self, images: Float[Array, "batch height width 3"], metadata: MetadataArrays
    ) -> None:
        """Touch every parameter, to initialize them."""
        image = self.encode_image(images)
        for name, encoder in self.head_inputs.items():
            self.head(name, self.encode_metadata(metadata) if encoder == "metadata" else image)

    @staticmethod
    def constrain(params: dict[str, Any]) -> dict[str, Any]:
        """Clamp the logit scale to [1, 100] after an update.

        Clamped here, not in the forward pass, where the gradient would vanish at the bound.
        """
        if "log_scale" not in params:
            return params
        return {**params, "log_scale": jnp.clip(params["log_scale"], 0.0, MAX_LOG_SCALE)}


@runtime_checkable
class TowersSpec(Protocol):
    """The part of a pretraining method, `objectives.Method`, that determines its towers."""

    logit_scale_init: float | None
    logit_bias_init: float | None

    def heads(self, schema: Schema) -> Mapping[str, Head]:
        """Return the heads by name."""
        ...


def build_image_encoder(config: ConfigDict, target: Target | None = None) -> ViT:
    """Build the image encoder of a config.

    Args:
        config: selects the encoder and its dtype.
        target: device that it is compiled for; None for JAX's default device.
    """
    image = config.image
    return vit(
        image.encoder,
        pool=image.pool,
        pre_norm=image.pre_norm,
        activation=image.activation,
        remat=image.remat,
        target=target,
        dtype=jnp.dtype(config.dtype),
    )


def build_towers(
    config: ConfigDict, schema: Schema, method: TowersSpec, target: Target | None = None
) -> Towers:
    """Build the towers of a method for a config and a data set.

    Args:
        config: selects the encoders and their dtype.
        schema: of the data.
        method: the method of the config, `objectives.build_method(config)`.
        target: device that the towers are compiled for; None for JAX's default device.

    Raises:
        ConfigError: the method cannot be trained on this data.

    Example:
        >>> from satmip_jax.data.shard_dataset import ShardDataset
        >>> from satmip_jax.models import build_towers
        >>> from satmip_jax.objectives import build_method
        >>> schema = ShardDataset(shards, "train").schema
        >>> sorted(build_towers(config, schema, build_method(config)).heads)
        ['image', 'image_ssl', 'metadata']
    """
    dtype, heads = jnp.dtype(config.dtype), method.heads(schema)
    inputs = {name: head.input for name, head in heads.items()}
    return Towers(
        image_encoder=build_image_encoder(config, target),
        metadata_encoder=METADATA_ENCODERS[config.metadata.encoder](
            config.metadata, schema, dtype, target
        )
        if "metadata" in inputs.values()
        else None,
        heads={name: build_head(head, dtype) for name, head in heads.items()},
        head_inputs=inputs,
        logit_scale_init=method.logit_scale_init,
        logit_bias_init=method.logit_bias_init,
    )


def example_batch(
    config: ConfigDict, schema: Schema
) -> tuple[Float32[Array, "batch height width 3"], dict[str, Shaped[Array, "batch ..."]]]:
    """Return inputs of the right shapes, two rows of zeros, to initialize towers with."""
    side = config.image.size
    metadata = {name: jnp.asarray(x) for name, x in tabular.encode([_EMPTY] * 2, schema).items()}
    metadata["caption"] = jnp.zeros((2, len(FIELDS), caption.FRAGMENT), jnp.uint8)
    return jnp.zeros((2, side, side, 3), jnp.float32), metadata


_EMPTY = Metadata({})
