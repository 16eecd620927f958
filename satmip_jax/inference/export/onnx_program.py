"""The image encoder as an ONNX program, converted by jax2onnx."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, UInt8

from satmip_jax.config.conversion import vary
from satmip_jax.distributed.target import Target
from satmip_jax.errors import SatmipError
from satmip_jax.evaluation.features import encode_images
from satmip_jax.evaluation.model import Model
from satmip_jax.models import build_towers
from satmip_jax.objectives import build_method
from satmip_jax.runtime.warning_filters import ignored

INPUT, OUTPUT = "images", "features"
OPSET = 18  # of any runtime since 2023


class OnnxError(SatmipError, RuntimeError):
    """An ONNX program cannot be written here; the message says why."""


def onnx_program(model: Model) -> bytes:
    """Return the image encoder as a serialized ONNX model, for any number of images.

    It takes "images", uint8 (n, s, s, 3) in RGB of the size of the model's images, includes
    normalization and parameters, computes in float32, and returns "features", float32 (n, d).

    Args:
        model: encoders and parameters.

    Raises:
        OnnxError: jax2onnx is not installed.
    """
    try:
        from jax2onnx import to_onnx
    except ImportError as error:
        raise OnnxError(f'ONNX needs jax2onnx ({error}): pip install "satmip-jax[onnx]"') from error
    config = vary(model.config, {"dtype": "float32", "image.remat": False})
    towers = build_towers(config, model.schema, build_method(config), Target("cpu"))
    plain = Model(config, model.schema, towers, model.params, model.mesh)
    params = jax.tree.map(jnp.asarray, jax.device_get(model.params))

    def encode(images: UInt8[Array, "n side side 3"]) -> Float32[Array, "n width"]:
        return encode_images(plain, params, images)

    side = config.image.size
    images: Any = jax.ShapeDtypeStruct(("n", side, side, 3), jnp.uint8)
    with _quiet():
        program = to_onnx(
            encode,
            [images],
            model_name=f"image encoder of {model.name}",
            opset=OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT],
        )
    data: bytes = program.SerializeToString()
    return data


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide what jax2onnx makes JAX and onnx_ir warn of, for each constant, without consequence."""
    serializer = logging.getLogger("onnx_ir")
    level = serializer.level
    serializer.setLevel(logging.ERROR)
    try:
        with ignored("Explicitly requested dtype float64"):
            yield
    finally:
        serializer.setLevel(level)
