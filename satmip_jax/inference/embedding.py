"""Embeddings of images and metadata by a trained model."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cached_property
from os import PathLike
from typing import Any

import numpy as np
from jaxtyping import Float, Float32

from satmip_jax.errors import SatmipError
from satmip_jax.evaluation.fusion import fuse, standardize
from satmip_jax.evaluation.joint_space import JointSpace
from satmip_jax.evaluation.loading import load_model
from satmip_jax.evaluation.model import Model
from satmip_jax.evaluation.row_batches import unit_rows
from satmip_jax.geolocation.locate import ImageLocation, Locator, read_calibration
from satmip_jax.inference.batches import is_features
from satmip_jax.inference.encoders import BatchEncoder
from satmip_jax.inference.image_input import InputProblem, Size, as_list
from satmip_jax.inference.metadata_input import as_rows
from satmip_jax.metadata.fields import Field, select_fields
from satmip_jax.metadata.record import Problems

log = logging.getLogger(__name__)

MAX_LISTED = 5  # problems in a message
GALLERIES = 4  # whose embeddings of locations are kept


class EmbeddingError(SatmipError, ValueError):
    """A request that the model cannot answer; the message says why."""


class EmbeddingModel:
    """A trained model that embeds images and metadata; `satmip_jax.load` returns one.

    Inputs that cannot be used do not stop the others: their rows are NaN, a warning counts them,
    and `problems` names them. A batch has one shape, whatever the number of inputs, so that each
    encoder is compiled once.

    Args:
        model: encoders and parameters.
        batch_size: see `satmip_jax.load`.
        image_size: see `satmip_jax.load`.

    Attributes:
        model: encoders, parameters, config and schema.
        encoder: runs the encoders of the model in batches.
        problems: the inputs of the last call that cannot be used.
        image_sizes: width and height of the images of the last call before they were resized.
        field_problems: counts of the metadata values of the last call that cannot be used, by field
            and reason.
    """

    def __init__(
        self, model: Model, *, batch_size: int | None = None, image_size: int | None = None
    ) -> None:
        if batch_size is not None and batch_size < 1:
            raise EmbeddingError(f"batch_size is {batch_size}: expected at least 1")
        try:
            self.encoder = BatchEncoder(model, batch_size=batch_size, image_size=image_size)
        except ValueError as error:
            raise EmbeddingError(str(error)) from error
        self.model = model
        self.problems: list[InputProblem] = []
        self.image_sizes: list[Size] = []
        self.field_problems = Problems()
        self._galleries: dict[bytes, np.ndarray] = {}

    def __repr__(self) -> str:
        kinds = "image and metadata features" if self.has_metadata else "image features"
        step = "" if self.model.step is None else f"step {self.model.step}, "
        return f"EmbeddingModel({self.model.name}, {step}images of {self.image_size} px, {kinds})"

    @property
    def image_size(self) -> int:
        """Side of the images as the model sees them, pixels; any image is resized to it."""
        return self.encoder.image_size

    @property
    def batch_size(self) -> int:
        """Number of inputs encoded at once, over all devices."""
        return self.encoder.batch_size

    @property
    def has_metadata(self) -> bool:
        """Whether the model embeds metadata."""
        return self.model.towers.has_metadata

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the metadata fields that the training saw; any subset of them will do."""
        if not self.has_metadata:
            return ()
        seen = self.model.schema.seen_fields(self.model.config.metadata.fields)
        return tuple(field.name for field in seen)

    def embed_images(self, images: Any, *, progress: bool = True) -> Float32[np.ndarray, "n d"]:
        """Embed images of any size.

        Args:
            images: paths, uint8 arrays (height, width, 3) in RGB or (height, width), or PIL images:
                one or an iterable of them, or an array (n, height, width, 3).
            progress: show a progress bar.

        Returns:
            One row of features per image, before the projection heads; NaN where an image cannot
            be used.

        Example:
            >>> import satmip_jax as sm
            >>> model = sm.load(workdir)
            >>> features = model.embed_images([np.zeros((48, 64, 3), np.uint8), "missing.jpg"])
            >>> features.shape, np.isnan(features).all(axis=1).tolist()
            ((2, 32), [False, True])
            >>> print(model.problems[0])
            missing.jpg: No such file or directory
        """
        self._reset()
        features, _ = self._embed_images(as_list(images), progress)
        self._report("images", len(features))
        return features

    def embed_metadata(
        self,
        records: Any,
        *,
        fields: str = "all",
        image_sizes: Sequence[Size] | None = None,
        progress: bool = True,
    ) -> Float32[np.ndarray, "n m"]:
        """Embed metadata with any subset of the fields.

        Args:
            records: mappings from field names to raw values, as for `Metadata.parse`, or `Metadata`
                records: one or an iterable of them; or a table of pandas, polars or pyarrow.
            fields: shown to the model, see `select_fields`.
            image_sizes: width and height in pixels of the image that each record describes: a
                `gsd` counts per pixel of it. By default the size of the stored images of the
                training, `model.schema.image_size`.
            progress: show a progress bar.

        Returns:
            One row of features per record, before the projection heads; NaN where a record has no
            usable value of any of the fields.

        Raises:
            EmbeddingError: the model has no metadata encoder, or there is not one size per record.
            FieldError: unknown fields.

        Example:
            >>> import satmip_jax as sm
            >>> model = sm.load(workdir)
            >>> model.embed_metadata([{"location": [12.5, 41.9]}, {"location": [2.3, 48.9]}]).shape
            (2, 16)
        """
        self._reset()
        rows = as_rows(records)
        features = self._embed_metadata(rows, select_fields(fields), image_sizes, progress)
        self._report("records", len(rows))
        return features

    def embed_locations(
        self, longitudes: Any, latitudes: Any, *, progress: bool = True
    ) -> Float32[np.ndarray, "n m"]:
        """Embed places by the metadata encoder, with all other fields missing.

        The results of the last few calls are kept: the same places again take no time, so a gallery
        of places is encoded once.

        Args:
            longitudes: degrees, one or an array of any shape.
            latitudes: degrees, of a shape that broadcasts with `longitudes`.
            progress: show a progress bar.

        Returns:
            One row of features per place, in C order; read-only. NaN for places that are not on
            Earth.

        Raises:
            EmbeddingError: the model does not take in locations.

        Example:
            >>> import satmip_jax as sm
            >>> model = sm.load(workdir)
            >>> model.embed_locations([12.5, 2.3], [41.9, 48.9]).shape
            (2, 16)
        """
        self._reset()
        if "location" not in self.fields:
            raise EmbeddingError(
                f"{self.model.name} takes in no locations ({', '.join(self.fields) or 'no fields'})"
            )
        places = np.stack(
            [x.ravel() for x in np.broadcast_arrays(longitudes, latitudes)], axis=1
        ).astype(np.float64)
        key = places.tobytes()
        if key not in self._galleries:
            rows = [{"location": place} for place in places.tolist()]
            features = self._embed_metadata(rows, select_fields("location"), None, progress)
            self.problems = [
                InputProblem(i, f"place {i}", "{:g}, {:g} is not on Earth".format(*places[i]))
                for i in (problem.index for problem in self.problems)
            ]
            self._report("places", len(rows))
            features.setflags(write=False)
            self._galleries[key] = features
            while len(self._galleries) > GALLERIES:
                del self._galleries[next(iter(self._galleries))]
        return self._galleries[key]

    def embed(
        self,
        images: Any,
        metadata: Any,
        *,
        weight: float = 1.0,
        bank: tuple[Float[np.ndarray, "k d"], Float[np.ndarray, "k m"]] | None = None,
        fields: str = "all",
        progress: bool = True,
    ) -> Float32[np.ndarray, "n d_plus_m"]:
        """Embed images together with their metadata: the features `both` of an evaluation.

        Args:
            images: see `embed_images`.
            metadata: one record per image, see `embed_metadata`; it describes the image as given.
            weight: of the metadata; the image has 1. `evaluation.fusion.choose_weight` chooses it
                on labelled examples.
            bank: features of images and of metadata of other examples, such as the train split,
                whose mean and deviation standardize the features, as in an evaluation. By default
                each row is scaled to length 1 instead, which needs no other examples.
            fields: see `embed_metadata`.
            progress: show a progress bar.

        Returns:
            One row per image: the features of the image and of its metadata side by side, NaN where
            either cannot be used.

        Raises:
            EmbeddingError: there are not as many records as images.
            FieldError: unknown fields.

        Example:
            >>> import satmip_jax as sm
            >>> model = sm.load(workdir)
            >>> image = np.zeros((64, 64, 3), np.uint8)
            >>> model.embed(image, {"location": [12.5, 41.9], "gsd": 10}).shape
            (1, 48)
        """
        self._reset()
        items, rows, shown = as_list(images), as_rows(metadata), select_fields(fields)
        self._require_metadata()
        if len(items) != len(rows):
            raise EmbeddingError(f"{len(items)} images and {len(rows)} records: give one for each")
        image, sizes = self._embed_images(items, progress)
        record = self._embed_metadata(rows, shown, sizes, progress)
        usable = np.isfinite(image).all(axis=1) & np.isfinite(record).all(axis=1)
        if bank is None:
            image, record = (
                unit_rows(x) * np.float32(np.sqrt(x.shape[1])) for x in (image, record)
            )
        else:
            image, record = (
                standardize(known, x)[1] for known, x in zip(bank, (image, record), strict=True)
            )
        self._report("images and records", len(items))
        fused = fuse(image, record, weight)
        fused[~usable] = np.nan
        return fused

    def similarity(
        self, images: Any, metadata: Any, *, fields: str = "all", progress: bool = True
    ) -> Float32[np.ndarray, "n m"]:
        """Return the cosine of every image with every record, in the space that they share.

        Args:
            images: see `embed_images`; or features from it, float (n, d).
            metadata: see `embed_metadata`; or features from it, float (m, e).
            fields: see `embed_metadata`.
            progress: show a progress bar.

        Returns:
            From -1 to 1; NaN in the row of an image or the column of a record that cannot be used.

        Raises:
            JointSpaceError: the method of the model does not embed both in one space.

        Example:
            >>> import satmip_jax as sm
            >>> model = sm.load(workdir)
            >>> images = np.zeros((2, 64, 64, 3), np.uint8)
            >>> places = [{"location": [12.5, 41.9]}, {"location": [2.3, 48.9]}]
            >>> model.similarity(images, [*places, {"location": "nowhere"}]).shape
            (2, 3)
        """
        self._reset()
        space = self.joint_space
        shown = select_fields(fields)
        if not is_features(images):
            images, _ = self._embed_images(as_list(images), progress)
        if not is_features(metadata):
            metadata = self._embed_metadata(as_rows(metadata), shown, None, progress)
        self._report("images and records", len(images) + len(metadata))
        ours, theirs = space.images(images), space.metadata(metadata)
        return np.asarray(ours @ theirs.T, np.float32)

    def locate(self, images: Any, **options: Any) -> list[ImageLocation | None]:
        """Return where, when and by which sensor images may have been taken, with probabilities.

        Args:
            images: see `embed_images`.
            **options: `region`, `cell`, `prior`, `top` and `progress`, see `Locator.locate` in
                `satmip_jax.geolocation.locate`.

        Returns:
            None for an image that cannot be used.

        Example:
            >>> import satmip_jax as sm
            >>> model = sm.load(workdir)
            >>> (found,) = model.locate(np.zeros((64, 64, 3), np.uint8), cell=10.0)
            >>> len(found.places), found.search.calibrated
            (5, False)
        """
        return self.locator.locate(as_list(images), **options)

    @cached_property
    def locator(self) -> Locator:
        """Candidates of places, encoded once, with the calibration in the model's folder."""
        return Locator(self, read_calibration(self.model))

    @cached_property
    def joint_space(self) -> JointSpace:
        """The space that images and metadata share.

        Raises:
            JointSpaceError: the method of the model does not embed both in one space.
        """
        return JointSpace(self.model)

    # --- batches ----------------------------------------------------------------------------------

    def _embed_images(self, items: list[Any], progress: bool) -> tuple[np.ndarray, list[Size]]:
        features, self.image_sizes, problems = self.encoder.images(items, progress=progress)
        self.problems.extend(problems)
        return features, self.image_sizes

    def _embed_metadata(
        self,
        rows: list[Any],
        shown: Sequence[Field],
        sizes: Sequence[Size] | None,
        progress: bool,
    ) -> np.ndarray:
        self._require_metadata()
        if sizes is not None and len(sizes) != len(rows):
            raise EmbeddingError(f"{len(sizes)} image sizes for {len(rows)} records: give one each")
        features, problems = self.encoder.metadata(
            rows, fields=shown, sizes=sizes, field_problems=self.field_problems, progress=progress
        )
        self.problems.extend(problems)
        return features

    # --- problems ---------------------------------------------------------------------------------

    def _require_metadata(self) -> None:
        if not self.has_metadata:
            raise EmbeddingError(
                f"{self.model.name} has no metadata encoder: use embed_images, or a model that was "
                "trained with metadata"
            )

    def _reset(self) -> None:
        self.problems, self.image_sizes, self.field_problems = [], [], Problems()

    def _report(self, what: str, total: int) -> None:
        """Warn of names that are no fields, and of the inputs that cannot be used."""
        if names := [f for f, why, _ in self.field_problems.rows() if why == "unknown field"]:
            log.warning(f"unknown fields are ignored: {', '.join(names[:MAX_LISTED])}")
        if not self.problems:
            return
        listed = "\n  ".join(map(str, self.problems[:MAX_LISTED]))
        more = len(self.problems) - MAX_LISTED
        taken = "" if what == "images" else f" (the model takes in {', '.join(self.fields)})"
        log.warning(
            f"{len(self.problems)} of {total} {what} cannot be used, and their features are NaN"
            f"{taken}:\n  {listed}"
            + (f"\n  ... and {more} more, see `problems` of the model" * (more > 0))
        )


def load(
    path: str | PathLike[str], *, batch_size: int | None = None, image_size: int | None = None
) -> EmbeddingModel:
    """Load a model; see `satmip_jax.load`."""
    return EmbeddingModel(load_model(path), batch_size=batch_size, image_size=image_size)
