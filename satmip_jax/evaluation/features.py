"""Features of a data set: the outputs of the encoders, before the projection heads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int, Int32, UInt8

from satmip_jax.augmentation.views import center_view, normalize
from satmip_jax.data.bad_records import BadRecords
from satmip_jax.data.batch_reader import Batch, ReadBatch, read_in_order
from satmip_jax.data.sampler import pad
from satmip_jax.data.shard_dataset import ShardDataset
from satmip_jax.distributed.sharding import (
    batch_sharding,
    process_rows,
    replicated,
    to_devices,
)
from satmip_jax.errors import SatmipError
from satmip_jax.evaluation.model import Model
from satmip_jax.metadata import tabular
from satmip_jax.metadata.fields import FIELDS, Field
from satmip_jax.runtime.threads import map_in_order

KINDS = ("image", "metadata", "both")
# Images per device encoded at once on a CPU: 512 of EuroSAT's take twice as long each as 32, whose
# values fit the caches.
CPU_BATCH = 32
CPU_BATCHES = 2  # encoded at the same time, in threads
CARRIED = ("label", "index", "location", "valid", "requested")  # beside the features of a batch


class FeaturesError(SatmipError, RuntimeError):
    """Features are missing or out of order; the message says how many."""


@dataclass(frozen=True)
class Features:
    """Features of n examples, with what is needed to classify them.

    Attributes:
        by_kind: float32 (n, d) of "image", "metadata" or both.
        labels: int32 (n,), -1 where unknown.
        locations: float32 (n, 2), longitude and latitude in degrees, NaN where unknown.
        indices: int (n,), the index of each record in its split.
    """

    by_kind: dict[str, Float[np.ndarray, "n _"]]
    labels: Int32[np.ndarray, " n"]
    locations: Float[np.ndarray, "n 2"]
    indices: Int[np.ndarray, " n"]

    def join(self, other: Features) -> Features:
        """Return the examples of both, one after the other."""
        return Features(
            {kind: np.concatenate([x, other.by_kind[kind]]) for kind, x in self.by_kind.items()},
            np.concatenate([self.labels, other.labels]),
            np.concatenate([self.locations, other.locations]),
            np.concatenate([self.indices, other.indices]),
        )


def extract(
    model: Model,
    dataset: ShardDataset,
    *,
    fields: Sequence[Field] = FIELDS,
    limit: int | None = None,
) -> Features:
    """Encode a split, as `extract_each` does for one selection of fields.

    Args:
        model: encoders and parameters.
        dataset: the split.
        fields: shown to the metadata encoder; the others are missing to it.
        limit: number of examples to use, spread evenly over the split; all by default.

    Raises:
        BadRecordsError: more than `config.data.bad_records` records are unreadable.

    Example:
        >>> from satmip_jax.data.shard_dataset import ShardDataset
        >>> from satmip_jax.evaluation.features import extract
        >>> from satmip_jax.evaluation.loading import load_model
        >>> features = extract(load_model(workdir), ShardDataset(shards, "val"), limit=10)
        >>> features.by_kind["image"].shape[0], features.labels.shape
        (10, (10,))
    """
    (features,) = extract_each(model, dataset, [fields], limit=limit)
    return features


def extract_each(
    model: Model,
    dataset: ShardDataset,
    selections: Sequence[Sequence[Field]],
    *,
    limit: int | None = None,
) -> list[Features]:
    """Encode a split, in the order of its records; unreadable records are left out.

    Images are read and encoded once, the metadata once per selection.

    Images are decoded and encoded in batches of `config.eval.batch_size`, on a CPU of `CPU_BATCH`
    per device, or of all images if they are fewer, so host memory is bounded by the batch, whatever
    the size of the split.

    Args:
        model: encoders and parameters.
        dataset: the split.
        selections: fields shown to the metadata encoder; the others are missing to it.
        limit: number of examples to use, spread evenly over the split; all by default.

    Returns:
        Features for each selection; the image features of all are the same array.

    Raises:
        BadRecordsError: more than `config.data.bad_records` records are unreadable.
    """
    config, mesh = model.config, model.mesh
    encode = make_encoder(model, dataset.schema.image_size)
    captions = model.towers.has_metadata and config.metadata.encoder == "text"
    count = min(limit or len(dataset), len(dataset))
    # a checkpoint, which may be untrusted, says the size: never more than there are images
    size = min(config.eval.batch_size, count + mesh.size - 1)
    if jax.default_backend() == "cpu":
        size = min(size, CPU_BATCH * mesh.size)
    size = size // mesh.size * mesh.size or mesh.size
    numbers = np.linspace(0, len(dataset), count, endpoint=False).astype(int)
    # each process reads and places its rows of each batch; the outputs are replicated. The last
    # batch is padded, so that one shape is compiled.
    mine = process_rows(mesh, size)
    rows = pad(np.arange(count), size).reshape(-1, size)[:, mine].ravel()
    requested = np.arange(-(-count // size) * size).reshape(-1, size)[:, mine].ravel() < count
    reader = ReadBatch(dataset, model.schema, captions)
    bad = BadRecords(
        dataset.split, budget=config.data.bad_records, outcome="is left out of the evaluation"
    )
    batches = read_in_order(reader, numbers[rows].tolist(), size=len(mine), bad_records=bad)

    def encode_batch(batch_and_mask: tuple[Batch, np.ndarray]) -> dict[str, np.ndarray]:
        batch, mask = batch_and_mask
        inputs = {
            "image": batch["image"],
            "metadata": [tabular.only(batch["metadata"], fields) for fields in selections],
            "label": batch["label"],
            "index": batch["index"],
            "location": tabular.locations(batch["metadata"]),
            "valid": batch["valid"],
            "requested": mask,
        }
        outputs: dict[str, np.ndarray] = jax.device_get(
            encode(model.params, to_devices(inputs, mesh))
        )
        return outputs

    # a CPU's small batches do not keep two cores busy; several devices exchange their outputs, and
    # must do so in the same order
    alone = jax.default_backend() == "cpu" and mesh.size == 1
    masked = zip(batches, requested.reshape(-1, len(mine)), strict=True)
    outputs = list(map_in_order(encode_batch, masked, CPU_BATCHES if alone else 1))
    table = {name: np.concatenate([out[name] for out in outputs]) for name in outputs[0]}
    requested = table.pop("requested")
    features = select_valid({name: column[requested] for name, column in table.items()}, numbers)
    numbered = [f"metadata {i}" for i in range(len(selections))]
    shared = {kind: x for kind, x in features.by_kind.items() if kind not in numbered}
    own = [{"metadata": features.by_kind[x]} if x in features.by_kind else {} for x in numbered]
    return [replace(features, by_kind=shared | metadata) for metadata in own]


def select_valid(table: dict[str, np.ndarray], numbers: Int[np.ndarray, " m"]) -> Features:
    """Drop the rows of bad records, and check that there is a row for every other record.

    Args:
        table: columns of m rows: "index" (record number), "valid" (False for a bad record),
            "label", "location", and the features by kind.
        numbers: the records that were requested.

    Raises:
        FeaturesError: the rows are not those of the requested records, in their order.
    """
    columns = dict(table)
    index: Int[np.ndarray, " n"] = columns.pop("index")
    valid: Bool[np.ndarray, " n"] = columns.pop("valid")
    if not np.array_equal(index, numbers):
        there = np.isin(numbers, index).sum()
        raise FeaturesError(
            f"features of {len(numbers) - there} of {len(numbers)} records are missing, or they "
            "are out of order: this is a fault of the program, and no score was computed"
        )
    columns = {name: column[valid] for name, column in columns.items()}
    labels, locations = columns.pop("label"), columns.pop("location")
    return Features(columns, labels, locations, numbers[valid])


def make_encoder(
    model: Model, stored_size: int
) -> Callable[[Any, dict[str, Any]], dict[str, jax.Array]]:
    """Return the jitted `(params, batch) -> {"image": (b, D), "metadata 0": (b, M)}`, replicated.

    It is made once per model: all splits and all evaluations of a run share its compilation. The
    batch's "metadata" are a list, of one selection of fields each.
    "label", "index", "location" and the masks of the batch are returned too, so that every process
    has them from all processes.

    Args:
        model: its parameters, or others of the same shapes and shardings, are the first argument.
        stored_size: side of the stored images, pixels.
    """
    if stored_size in model.encoders:
        return model.encoders[stored_size]

    def encode(params: Any, batch: dict[str, Any]) -> dict[str, jax.Array]:
        features = {"image": encode_images(model, params, batch["image"])}
        if model.towers.has_metadata:
            for i, metadata in enumerate(batch["metadata"]):
                features[f"metadata {i}"] = encode_metadata(model, params, metadata, stored_size)
        return features | {name: batch[name] for name in CARRIED}

    model.encoders[stored_size] = jax.jit(
        encode,
        in_shardings=(
            jax.tree.map(lambda x: x.sharding, model.params),
            batch_sharding(model.mesh),
        ),
        out_shardings=replicated(model.mesh),
    )
    return model.encoders[stored_size]


def encode_images(
    model: Model, params: Any, images: UInt8[Array, "batch side side 3"]
) -> Float32[Array, "batch features"]:
    """Return the features of images, as a part of a jitted function.

    Args:
        model: encoders, image size and the statistics that normalize.
        params: of the towers.
        images: RGB, squares of any size: resized to the size of the views.
    """
    view = center_view(images, model.config.image.size)
    view = normalize(view, model.schema.image_mean, model.schema.image_std)
    features: Any = model.towers.apply({"params": params}, view, method="encode_image")
    return features


def encode_metadata(
    model: Model, params: Any, metadata: dict[str, Array], stored_size: int
) -> Float32[Array, "batch features"]:
    """Return the features of metadata, as a part of a jitted function.

    Args:
        model: encoders and config.
        params: of the towers.
        metadata: arrays of `tabular.encode`, and "caption" for a text encoder; they describe images
            of side `stored_size`.
        stored_size: pixels.
    """
    metadata = of_whole_image(model, metadata, stored_size)
    features: Any = model.towers.apply({"params": params}, metadata, method="encode_metadata")
    return features


def of_whole_image(model: Model, metadata: dict[str, Array], stored_size: int) -> dict[str, Array]:
    """Return the metadata of whole images, resized to the views; arguments as above."""
    if not model.config.metadata.follow_crop:
        return metadata
    everything = jnp.array([[0.0, 0.0, 1.0, 1.0]], jnp.float32)
    crop = jnp.tile(everything, (metadata["present"].shape[0], 1))
    return tabular.follow_crop(metadata, crop, stored_size, model.config.image.size)
