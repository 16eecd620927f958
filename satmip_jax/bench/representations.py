"""Which representation of the metadata to probe: scores of several, from one model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float32

from satmip_jax.data.shard_dataset import ShardDataset
from satmip_jax.errors import SatmipError
from satmip_jax.evaluation.features import CARRIED, extract, of_whole_image
from satmip_jax.evaluation.model import Model
from satmip_jax.evaluation.protocols import score
from satmip_jax.evaluation.results import Score
from satmip_jax.models.ft_transformer import FTBlock, FTTransformer
from satmip_jax.models.towers import TabularTower

CHOSEN = "class token"  # the encoder's output, which `satmip evaluate` scores
Representations = dict[str, Float32[Array, "batch width"]]


def bench(model: Model, data: str, *, protocols: Sequence[str], block: float) -> list[Score]:
    """Return the accuracy of the representations of a model's metadata on val, by train.

    Args:
        model: with the tabular encoder of metadata.
        data: prepared folder.
        protocols: keys of `PROTOCOLS`.
        block: side of the cells of blocked scores, degrees; 0: none.

    Raises:
        SatmipError: the model has no tabular encoder of metadata.
    """
    if not isinstance(model.towers.metadata_encoder, TabularTower):
        raise SatmipError(f"{model.name} has no tabular encoder of metadata to compare")
    splits = [ShardDataset(data, split) for split in ("train", "val")]
    size = splits[0].schema.image_size
    compare = replace(model, encoders={size: _encoder(model, size)})
    bank, queries = (extract(compare, split) for split in splits)
    rows = score(
        bank,
        queries,
        kinds=list(bank.by_kind),
        dataset=splits[1],
        model=model.name,
        protocols=protocols,
        block=block,
    )
    return [row for row in rows if row.metric == "accuracy"]


def _encoder(model: Model, stored_size: int) -> Any:
    def encode(params: Any, batch: dict[str, Any]) -> dict[str, Array]:
        (metadata,) = batch["metadata"]  # one selection of fields
        found = representations(model, params, of_whole_image(model, metadata, stored_size))
        return found | {name: batch[name] for name in CARRIED}

    return jax.jit(encode)


def representations(model: Model, params: Any, metadata: dict[str, Array]) -> Representations:
    """Return the candidates, by name.

    Args:
        model: with the tabular encoder of metadata.
        params: of its towers.
        metadata: arrays of `tabular.encode` of whole images, batched.
    """
    tower: Any = model.towers.metadata_encoder
    transformer: FTTransformer = tower.transformer
    wanted = ("tokenizer", *(f"block{i}" for i in range(transformer.depth)))
    apply: Any = model.towers.apply
    class_token, state = apply(
        {"params": params},
        metadata,
        method="encode_metadata",
        capture_intermediates=lambda module, _: module.name in wanted,
        mutable=["intermediates"],
    )
    outputs = state["intermediates"]["metadata_encoder"]["transformer"]
    layers = [outputs[name]["__call__"][0] for name in wanted]  # (b, tokens, width) each
    # The last block computes the class token alone: here the fields' tokens, too.
    last = FTBlock(
        transformer.heads,
        int(transformer.width * transformer.ffn_factor),
        first=transformer.depth == 1,
        queries=None,
        attention_dropout=0.0,
        ffn_dropout=0.0,
        attention=transformer.attention,
        dtype=transformer.dtype,
    )
    weights = params["metadata_encoder"]["transformer"][f"block{transformer.depth - 1}"]
    before = layers[-2]  # of depth 1, the tokens without the class token, which is learned anyway
    tokens: Any = last.apply({"params": weights}, before)
    fields = slice(None) if transformer.depth == 1 else slice(1, None)
    return {
        CHOSEN: class_token,
        "class token before the norm": layers[-1][:, 0],
        "mean of the fields' tokens": jnp.mean(tokens[:, fields], axis=1),
        "their mean one block earlier": jnp.mean(before[:, fields], axis=1),
        "projection": apply({"params": params}, "metadata", class_token, method="head"),
    }
