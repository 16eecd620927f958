"""The towers of a method: image encoder, metadata encoder, heads, and how they are built."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from satmip_jax.metadata import caption, tabular
from satmip_jax.metadata.fields import FIELDS, field
from satmip_jax.metadata.record import Metadata
from satmip_jax.metadata.schema import Schema
from satmip_jax.models.ft_transformer import FTTransformer
from satmip_jax.models.projectors import LinearProjector, MLPProjector
from satmip_jax.models.text_transformer import TextTransformer
from satmip_jax.models.vit import vit

Array = jax.Array
MAX_LOG_SCALE = math.log(100.0)  # Radford et al. 2021


class TabularTower(nn.Module):
    """FT-Transformer over the fields: metadata arrays -> (b, width) float32."""

    schema: Schema
    fields: tuple[str, ...]
    frequencies: int
    transformer: FTTransformer

    def __call__(self, metadata: Mapping[str, Array], train: bool = False) -> Array:
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
            train=train,
        )


class TextTower(nn.Module):
    """Transformer over the caption: metadata arrays with "caption" -> (b, width) float32.

    In training the fields come in random order and some are dropped.
    """

    fields: tuple[str, ...]
    length: int
    field_dropout: float
    transformer: TextTransformer

    def __call__(self, metadata: Mapping[str, Array], train: bool = False) -> Array:
        position = tabular.field_index()
        chosen = [position[name] for name in self.fields]
        fragments = metadata["caption"][:, np.array(chosen, np.int32)]
        tokens = caption.assemble(
            fragments,
            self.make_rng("fields") if train else jax.random.key(0),
            length=self.length,
            dropout=self.field_dropout if train else 0.0,
            shuffle=train,
        )
        return self.transformer(tokens, train=train)


def _tabular(config: ConfigDict, schema: Schema, dtype: Any) -> nn.Module:
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


def _text(config: ConfigDict, schema: Schema, dtype: Any) -> nn.Module:
    names = tuple(field.name for field in schema.select_fields(config.fields))
    # no longer than the chosen fields' phrases can be: padding costs as much as text
    length = min(config.caption_length, caption.max_length(len(names)))
    transformer = TextTransformer(
        width=config.width,
        depth=config.depth,
        heads=config.heads,
        vocab_size=caption.VOCAB_SIZE,
        length=length,
        dtype=dtype,
    )
    return TextTower(names, length, config.field_dropout, transformer)


# A new metadata encoder is one file in this folder and one line here.
METADATA_ENCODERS = {"tabular": _tabular, "text": _text}


class Towers(nn.Module):
    """What a method trains; see `objectives.Method.heads` for the names of the heads."""

    image_encoder: nn.Module
    metadata_encoder: nn.Module | None
    heads: Mapping[str, nn.Module]
    logit_scale_init: float
    logit_bias_init: float | None = None  # of the sigmoid loss; None: no bias

    @property
    def has_metadata(self) -> bool:
        return self.metadata_encoder is not None

    def setup(self) -> None:
        if self.metadata_encoder is not None:
            start = nn.initializers.constant(math.log(self.logit_scale_init))
            self.log_scale = self.param("log_scale", start, (), jnp.float32)
            if self.logit_bias_init is not None:
                constant = nn.initializers.constant(self.logit_bias_init)
                self.bias = self.param("logit_bias", constant, (), jnp.float32)

    def encode_image(self, images: Array, train: bool = False) -> Array:
        """(b, s, s, 3) normalised -> (b, D) float32."""
        del train  # the ViT has nothing that only training does
        return self.image_encoder(images)

    def encode_metadata(self, metadata: Mapping[str, Array], train: bool = False) -> Array:
        """Arrays of `tabular.encode` (and "caption") -> (b, M) float32."""
        if self.metadata_encoder is None:
            raise ValueError("this method has no metadata encoder")
        return self.metadata_encoder(metadata, train=train)

    def head(self, name: str, features: Array) -> Array:
        """(b, D) -> (b, d) float32."""
        return self.heads[name](features)

    def logit_scale(self) -> Array:
        """The learned inverse temperature of the loss between images and metadata."""
        return jnp.exp(self.log_scale)

    def logit_bias(self) -> Array:
        """The learned bias of the sigmoid loss."""
        return self.bias

    def __call__(self, images: Array, metadata: Mapping[str, Array]) -> None:
        """Touch every parameter, to initialise them."""
        image = self.encode_image(images)
        for name in self.heads:
            self.head(name, self.encode_metadata(metadata) if name == "metadata" else image)

    @staticmethod
    def constrain(params: dict[str, Any]) -> dict[str, Any]:
        """Clamp the logit scale to [1, 100] after an update.

        Clamped here rather than in the forward, where the gradient would vanish at the bound.
        """
        if "log_scale" not in params:
            return params
        return {**params, "log_scale": jnp.clip(params["log_scale"], 0.0, MAX_LOG_SCALE)}


def build_towers(
    config: ConfigDict, schema: Schema, heads: Mapping[str, tuple[Any, ...]]
) -> Towers:
    """Build the towers for a config, a data set and the heads that its method asks for."""
    dtype = jnp.dtype(config.dtype)
    affine = functools.partial(MLPProjector, 0, layers=1)  # no hidden layer: one, with a bias
    kinds: dict[str, Any] = {"mlp": MLPProjector, "linear": LinearProjector, "affine": affine}
    image = config.image
    return Towers(
        image_encoder=vit(image.encoder, pool=image.pool, remat=image.remat, dtype=dtype),
        metadata_encoder=METADATA_ENCODERS[config.metadata.encoder](config.metadata, schema, dtype)
        if "metadata" in heads
        else None,
        heads={name: kinds[kind](*sizes, dtype=dtype) for name, (kind, *sizes) in heads.items()},
        logit_scale_init=config.method.logit_scale_init,
        logit_bias_init=config.method.logit_bias_init if config.method.loss == "sigmoid" else None,
    )


def example_batch(config: ConfigDict, schema: Schema) -> tuple[Array, dict[str, Array]]:
    """Inputs of the right shapes, two rows of zeros, to initialise the towers with."""
    side = config.image.size
    metadata = {name: jnp.asarray(x) for name, x in tabular.encode([_EMPTY] * 2, schema).items()}
    metadata["caption"] = jnp.zeros((2, len(FIELDS), caption.FRAGMENT), jnp.uint8)
    return jnp.zeros((2, side, side, 3), jnp.float32), metadata


_EMPTY = Metadata({})


def decays(params: Any) -> Any:
    """Which parameters weight decay applies to: matrices of the blocks and the projectors.

    Not to norms, biases, tokens, embeddings and the tokenizer (Gorishniy et al. 2021; SLIP).
    """

    def decayed(path: tuple[Any, ...], _: Any) -> bool:
        names = [str(getattr(key, "key", key)) for key in path]
        return names[-1] == "kernel" and not any("token" in name for name in names)

    return jax.tree_util.tree_map_with_path(decayed, params)
