"""The encoders of a model over any number of inputs, in batches of one shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from satmip_jax.config.conversion import vary
from satmip_jax.distributed.sharding import replicated, to_devices
from satmip_jax.evaluation.features import CPU_BATCH, CPU_BATCHES, encode_images, encode_metadata
from satmip_jax.evaluation.model import Model
from satmip_jax.evaluation.row_batches import OfRows, jit_rows, padded
from satmip_jax.inference.batches import with_bar
from satmip_jax.inference.image_input import ImageRows, InputProblem, Size, read_rows
from satmip_jax.inference.metadata_input import encode_records, parse_rows
from satmip_jax.metadata.fields import FIELDS, Field
from satmip_jax.metadata.record import Metadata, Problems
from satmip_jax.models.position_resize import resize_positions
from satmip_jax.runtime.process_pool import cores
from satmip_jax.runtime.threads import map_in_order


class BatchEncoder:
    """The encoders of a model; each is compiled for one batch, on first use.

    Args:
        model: encoders and parameters.
        batch_size: see `satmip_jax.load`.
        image_size: see `satmip_jax.load`.

    Attributes:
        model: encoders, parameters, config and schema, for images of the size of the training.
        batch_size: inputs encoded at once, over all devices.
        image_size: side of the images as the encoder sees them, pixels.
        stored_size: side of the squares that images are read as, pixels.
    """

    def __init__(
        self, model: Model, *, batch_size: int | None = None, image_size: int | None = None
    ) -> None:
        devices = model.mesh.size
        on_cpu = model.mesh.devices.flat[0].platform == "cpu"
        if batch_size is None:
            batch_size = CPU_BATCH * devices if on_cpu else model.config.eval.batch_size
        trained = int(model.config.image.size)
        stored = int(model.schema.image_size)
        self.model = model
        self.batch_size = -(-batch_size // devices) * devices
        self.image_size = image_size or trained
        self.stored_size = stored
        # metadata describe images of the size of the training, whatever the size of the images
        self._image_model = model
        if self.image_size != trained:
            self.stored_size = round(stored * self.image_size / trained)
            self._image_model = resized(model, self.image_size)
        self._threads = CPU_BATCHES if on_cpu and devices == 1 else 1
        self._encode_image = jit_rows(
            lambda params, images: encode_images(self._image_model, params, images),
            self._image_model,
        )
        self._encode_metadata = jit_rows(
            lambda params, metadata: encode_metadata(model, params, metadata, stored), model
        )

    def images(
        self, items: Sequence[Any], *, progress: bool
    ) -> tuple[np.ndarray, list[Size], list[InputProblem]]:
        """Encode images.

        Args:
            items: see `image_input.read_rows`.
            progress: show a progress bar.

        Returns:
            Features, float32 (n, d), NaN where an image cannot be used; the width and height of
            each image; the images that cannot be used.
        """

        def read(start: int) -> ImageRows:
            part = items[start : start + self.batch_size]
            return read_rows(part, start, self.stored_size)

        def encode(rows: ImageRows) -> tuple[np.ndarray, ImageRows]:
            return self.pixels(rows.pixels), rows

        starts = range(0, len(items), self.batch_size)
        parts: list[np.ndarray] = []
        sizes: list[Size] = []
        problems: list[InputProblem] = []
        batches = map_in_order(encode, map_in_order(read, starts, cores()), self._threads)
        for features, rows in with_bar(batches, len(items), "images", progress, self.batch_size):
            for problem in rows.problems:
                features[problem.index - len(sizes)] = np.nan
            parts.append(features)
            sizes.extend(rows.sizes)
            problems.extend(rows.problems)
        side = self.stored_size
        example = np.zeros((1, side, side, 3), np.uint8)
        return self._joined(parts, self._encode_image, self._image_model, example), sizes, problems

    def pixels(self, squares: np.ndarray) -> np.ndarray:
        """Encode one batch of squares.

        Args:
            squares: uint8 (n, stored_size, stored_size, 3), RGB; n is at most `batch_size`.

        Returns:
            float32 (n, d).
        """
        return self._run(self._encode_image, self._image_model, squares)

    def metadata(
        self,
        rows: Sequence[Any],
        *,
        fields: Sequence[Field] = FIELDS,
        sizes: Sequence[Size] | None = None,
        field_problems: Problems,
        progress: bool,
    ) -> tuple[np.ndarray, list[InputProblem]]:
        """Encode metadata.

        Args:
            rows: see `metadata_input.parse_rows`.
            fields: shown to the encoder.
            sizes: width and height of the images; None for squares of the size of the stored images
                of the training.
            field_problems: counts the values of fields that cannot be used.
            progress: show a progress bar.

        Returns:
            Features, float32 (n, m), NaN where a record has no usable field; these records.
        """
        records, problems = parse_rows(rows, field_problems)
        named = {problem.index for problem in problems}

        def encode(start: int) -> tuple[np.ndarray, np.ndarray]:
            part = slice(start, start + self.batch_size)
            of = None if sizes is None else sizes[part]
            arrays, usable = encode_records(records[part], of, self.model, fields)
            return self._run(self._encode_metadata, self.model, arrays), usable

        starts = range(0, len(rows), self.batch_size)
        batches = map_in_order(encode, starts, self._threads)
        parts = []
        for start, (features, usable) in zip(
            starts, with_bar(batches, len(rows), "records", progress, self.batch_size), strict=True
        ):
            features[~usable] = np.nan
            parts.append(features)
            problems += [
                InputProblem(start + int(row), f"record {start + row}", "has no usable field")
                for row in np.flatnonzero(~usable)
                if start + int(row) not in named
            ]
        problems.sort(key=lambda problem: problem.index)
        example, _ = encode_records([Metadata({})], None, self.model, fields)
        return self._joined(parts, self._encode_metadata, self.model, example), problems

    def _run(self, function: OfRows, model: Model, inputs: Any) -> np.ndarray:
        """Encode the rows of one batch, padded to its size."""
        count = len(jax.tree.leaves(inputs)[0])
        batch = jax.tree.map(lambda x: padded(x, self.batch_size), inputs)
        features = function(model.params, to_devices(batch, model.mesh))
        return np.array(jax.device_get(features)[:count])  # a copy: rows are set to NaN

    def _joined(
        self, parts: list[np.ndarray], function: OfRows, model: Model, example: Any
    ) -> np.ndarray:
        """Return all rows; for no inputs, none of the right width."""
        if parts:
            return np.concatenate(parts)
        batch = jax.tree.map(lambda x: padded(x, self.batch_size), example)
        width = jax.eval_shape(function, model.params, batch).shape[1]
        return np.zeros((0, width), np.float32)


def resized(model: Model, image_size: int) -> Model:
    """Return the model for images of another size: its position embeddings are interpolated.

    Args:
        model: encoders and parameters.
        image_size: side of the images, pixels.

    Raises:
        ValueError: the size is not a multiple of the encoder's patches.

    Example:
        >>> from satmip_jax.evaluation.loading import load_model
        >>> from satmip_jax.inference.encoders import resized
        >>> model = load_model(workdir)
        >>> model.params["image_encoder"]["position"].shape
        (16, 32)
        >>> resized(model, 64).params["image_encoder"]["position"].shape
        (64, 32)
    """
    encoder: Any = model.towers.image_encoder
    patch, trained = encoder.patch_size, model.config.image.size
    if image_size < patch or image_size % patch:
        raise ValueError(
            f"image_size is {image_size}: expected a multiple of the patches of {patch} pixels"
        )
    position = model.params["image_encoder"]["position"]
    old, new = trained // patch, image_size // patch
    resize = jax.jit(
        lambda x: resize_positions(x, (old, old), (new, new), len(position) - old * old),
        out_shardings=replicated(model.mesh),
    )
    params = {**model.params, "image_encoder": {**model.params["image_encoder"]}}
    params["image_encoder"]["position"] = resize(position)
    config = vary(model.config, {"image.size": image_size})
    return replace(model, config=config, params=params, encoders={})
