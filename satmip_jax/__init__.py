"""SatMIP in JAX: representations of satellite images learned from their metadata.

`satmip_jax.load` loads a trained model; nothing heavy is imported before it is called.
"""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from satmip_jax.inference.embedding import EmbeddingModel

__version__ = "0.2.0"
__all__ = ["__version__", "load"]


def load(
    path: str | PathLike[str], *, batch_size: int | None = None, image_size: int | None = None
) -> EmbeddingModel:
    """Load a trained model to embed images and metadata with, on all devices.

    Args:
        path: workdir of a run, folder written by `satmip export --format safetensors`, or name of a
            model that comes with this package, see `satmip models`.
        batch_size: images or records encoded at once, over all devices. By default 32 per device
            on CPUs, and elsewhere `config.eval.batch_size` of the run.
        image_size: side of the images as the model sees them, pixels, a multiple of its patches. By
            default that of the training; for another one the position embeddings are interpolated.

    Raises:
        SatmipError: there is no model, or none that is intact; the message says what to do.

    Example:
        >>> import satmip_jax as sm
        >>> model = sm.load(workdir)
        >>> model.embed_images(np.zeros((5, 64, 64, 3), np.uint8)).shape
        (5, 32)
    """
    from satmip_jax.inference import embedding

    return embedding.load(path, batch_size=batch_size, image_size=image_size)
