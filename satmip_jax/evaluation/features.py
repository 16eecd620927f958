"""Representations of a data set: the encoders' outputs before the projectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from satmip_jax.augmentation.views import center_view, normalize
from satmip_jax.data.bad_records import BadRecords
from satmip_jax.data.batch_reader import ReadBatch, read_in_order
from satmip_jax.data.sampler import process_slice
from satmip_jax.data.shard_dataset import ShardDataset
from satmip_jax.distributed.sharding import batch_sharding, replicated, to_devices
from satmip_jax.metadata import tabular
from satmip_jax.metadata.fields import FIELDS, Field
from satmip_jax.metadata.schema import Schema
from satmip_jax.models import Towers

KINDS = ("image", "metadata", "both")


@dataclass(frozen=True)
class Features:
    """What is known of n examples, to classify them by.

    Attributes:
        by_kind: "image" and "metadata", those there are; float32 (n, d) each.
        labels: int32 (n,), -1 where unknown.
        locations: float32 (n, 2), longitude and latitude in degrees, NaN where unknown.
    """

    by_kind: dict[str, np.ndarray]
    labels: np.ndarray
    locations: np.ndarray

    def join(self, other: Features) -> Features:
        """The examples of both, one after the other."""
        return Features(
            {kind: np.concatenate([x, other.by_kind[kind]]) for kind, x in self.by_kind.items()},
            np.concatenate([self.labels, other.labels]),
            np.concatenate([self.locations, other.locations]),
        )


def unit(x: np.ndarray) -> np.ndarray:
    """Rows at unit length; a zero row stays zero."""
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-6)


def extract(
    config: ConfigDict,
    towers: Towers,
    params: Any,
    schema: Schema,
    dataset: ShardDataset,
    mesh: Mesh,
    *,
    fields: Sequence[Field] = FIELDS,
    limit: int | None = None,
) -> Features:
    """Encode a split, in the order of its records; those that cannot be read are left out.

    Args:
        schema: the one the model was trained with: its statistics and vocabularies are used.
        fields: those that the metadata encoder may see; the others are missing to it.
        limit: use only so many examples, spread evenly over the split.
    """
    size = config.eval.batch_size // mesh.size * mesh.size or mesh.size
    encode = make_encoder(config, towers, schema, dataset.schema.image_size, mesh)
    captions = towers.has_metadata and config.metadata.encoder == "text"
    count = min(limit or len(dataset), len(dataset))
    numbers = np.linspace(0, len(dataset), count, endpoint=False).astype(int).tolist()
    # each process reads and lays out its rows of each batch; the outputs come back whole
    batches = [numbers[first : first + size] for first in range(0, count, size)]
    batches[-1] += numbers[:1] * (size - len(batches[-1]))  # every batch has the same shape
    rows = [number for batch in batches for number in process_slice(batch, mesh)]
    reader = ReadBatch(dataset, schema, captions)
    bad = BadRecords(dataset.split, budget=config.data.bad_records)
    each = size // jax.process_count()
    outputs = []
    for batch in read_in_order(reader, rows, size=each, bad_records=bad):
        inputs = {"image": batch["image"], "metadata": tabular.only(batch["metadata"], fields)}
        known = {name: batch[name] for name in ("label", "index")}
        known["location"] = tabular.locations(batch["metadata"])
        laid_out = to_devices(inputs | known, mesh)
        outputs.append(jax.device_get(encode(params, laid_out)))
    table = {name: np.concatenate([out[name] for out in outputs])[:count] for name in outputs[0]}
    own = table.pop("index") == numbers  # and no other record that stands in for a bad one
    table = {name: column[own] for name, column in table.items()}
    labels, locations = table.pop("label"), table.pop("location")
    return Features(table, labels, locations)


def make_encoder(config: ConfigDict, towers: Towers, schema: Schema, stored_size: int, mesh: Mesh):
    """Return the jitted `(params, batch) -> {"image": (b, D), "metadata": (b, M)}`.

    "label", "index" and "location" of the batch come along, from all processes.
    """

    def encode(params: Any, batch: dict[str, Any]) -> dict[str, Any]:
        view = center_view(batch["image"], config.image.size)
        view = normalize(view, schema.image_mean, schema.image_std)
        variables = {"params": params}
        features = {"image": towers.apply(variables, view, method="encode_image")}
        if towers.has_metadata:
            metadata = batch["metadata"]
            if config.metadata.follow_crop:
                whole = jax.numpy.tile(
                    jax.numpy.array([[0.0, 0.0, 1.0, 1.0]], jax.numpy.float32),
                    (view.shape[0], 1),
                )
                metadata = tabular.follow_crop(metadata, whole, stored_size, config.image.size)
            features["metadata"] = towers.apply(variables, metadata, method="encode_metadata")
        return features | {name: batch[name] for name in ("label", "index", "location")}

    everywhere = replicated(mesh)
    return jax.jit(
        encode,
        in_shardings=(everywhere, batch_sharding(mesh)),
        out_shardings=everywhere,
    )
