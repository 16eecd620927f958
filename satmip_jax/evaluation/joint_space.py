"""The space that a model's images and metadata share."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Float32

from satmip_jax.distributed.sharding import to_devices
from satmip_jax.errors import SatmipError
from satmip_jax.evaluation.model import Model
from satmip_jax.evaluation.row_batches import OfRows, jit_rows, padded, unit_rows
from satmip_jax.objectives import build_method

BATCH = 1024  # rows projected at once, over all devices


class JointSpaceError(SatmipError, ValueError):
    """A model whose method does not embed images and metadata in one space."""


class JointSpace:
    """Projections of features of images and metadata into one space, where their cosine ranks them.

    Each projection head is compiled once, for batches of one shape.

    Args:
        model: encoders and parameters.

    Raises:
        JointSpaceError: the method of the model has no such space.

    Example:
        >>> from satmip_jax.evaluation.loading import load_model
        >>> from satmip_jax.evaluation.joint_space import JointSpace
        >>> space = JointSpace(load_model(workdir))
        >>> space.images(np.ones((3, 32), np.float32)).shape
        (3, 8)
    """

    def __init__(self, model: Model) -> None:
        heads = build_method(model.config).joint_heads
        if heads is None:
            raise JointSpaceError(
                f"{model.name} does not embed images and metadata in one space: use a model that "
                "was trained by satmip or satmips"
            )
        self.model = model
        self._batch = -(-BATCH // model.mesh.size) * model.mesh.size
        self._image, self._metadata = map(self._projection, heads)

    def images(self, features: Float[np.ndarray, "n d"]) -> Float32[np.ndarray, "n e"]:
        """Return unit vectors of image features, from `EmbeddingModel.embed_images`.

        A row of NaN stays one.
        """
        return self._project(self._image, features)

    def metadata(self, features: Float[np.ndarray, "n m"]) -> Float32[np.ndarray, "n e"]:
        """Return unit vectors of metadata features, from `EmbeddingModel.embed_metadata`.

        A row of NaN stays one.
        """
        return self._project(self._metadata, features)

    def _projection(self, head: str) -> OfRows:
        def project(params: Any, rows: jax.Array) -> Any:
            return self.model.towers.apply({"params": params}, head, rows, method="head")

        return jit_rows(project, self.model)

    def _project(self, function: OfRows, features: np.ndarray) -> np.ndarray:
        run = partial(function, self.model.params)
        parts = []
        for start in range(0, len(features), self._batch):
            rows = np.asarray(features[start : start + self._batch], np.float32)
            outputs = run(to_devices(padded(rows, self._batch), self.model.mesh))
            parts.append(unit_rows(jax.device_get(outputs)[: len(rows)]))
        if parts:
            return np.concatenate(parts)
        width = jax.eval_shape(run, jnp.zeros((self._batch, features.shape[1]), jnp.float32))
        return np.zeros((0, width.shape[1]), np.float32)


def has_joint_space(model: Model) -> bool:
    """Whether the method of a model embeds images and metadata in one space."""
    return build_method(model.config).joint_heads is not None
