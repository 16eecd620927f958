"""Export of a model: the whole as safetensors, the image encoder for timm, as StableHLO or ONNX."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export as jax_export

import satmip_jax
from satmip_jax.checkpoints.integrity import named_leaves
from satmip_jax.checkpoints.safetensors_file import write_tensors
from satmip_jax.config.conversion import vary
from satmip_jax.config.defaults import default_config
from satmip_jax.data.shard_format import SCHEMA_FILE
from satmip_jax.distributed.target import Target
from satmip_jax.errors import SatmipError
from satmip_jax.evaluation.features import encode_images
from satmip_jax.evaluation.loading import (
    CONFIG_FILE,
    FORMAT,
    WEIGHTS_FILE,
    load_model,
    model_folder,
)
from satmip_jax.evaluation.model import Model
from satmip_jax.evaluation.results import Score, read_scores, write_scores
from satmip_jax.geolocation.calibration import FILE as CALIBRATION_FILE
from satmip_jax.geolocation.locate import read_calibration
from satmip_jax.inference.export.card import CARD_FILE, write_card
from satmip_jax.inference.export.onnx_program import onnx_program
from satmip_jax.models import build_towers
from satmip_jax.models.timm_weights import timm_config, to_timm
from satmip_jax.objectives import build_method
from satmip_jax.runtime.files import write_atomically
from satmip_jax.runtime.paths import AnyPath, as_path, is_remote
from satmip_jax.runtime.stores import check_access, put_folder

FORMATS = ("safetensors", "timm", "stablehlo", "onnx")
STABLEHLO_FILE, ONNX_FILE = "image_encoder.stablehlo", "image_encoder.onnx"
PLATFORMS = ("cpu", "cuda", "tpu")  # that the StableHLO program runs on
SCORES_FILE = "evaluation.json"


class ExportError(SatmipError, ValueError):
    """An export that cannot be made; the message says why and what to do."""


def export(
    path: str | PathLike[str],
    out: str | PathLike[str],
    *,
    format: str = "safetensors",
    half: bool = False,
    licence: str = "",
) -> list[AnyPath]:
    """Write a model, or its image encoder, to a folder with a model card.

    Args:
        path: workdir of a run, an exported folder, or the name of a shipped model.
        out: new or empty folder, on a disk or in a bucket.
        format: "safetensors": the whole model, for `satmip_jax.load`. "timm": the image encoder,
            for timm and PyTorch. "stablehlo": the image encoder as a program for any number of
            images, for `jax.export.deserialize`. "onnx": the same for ONNX Runtime, in float32.
        half: store float16, in half the space; not for "stablehlo" and "onnx".
        licence: identifier of the licence of the weights, such as "apache-2.0", for the card.

    Returns:
        The files that were written.

    Raises:
        ExportError: unknown format, or the folder is not empty.
        OnnxError: jax2onnx is not installed.
        ModelError: there is no model in `path`.
        CheckpointError: no checkpoint of the run is intact.
        WeightsError: parameters are not finite, or too large for float16.
        StoreError: `out` is in a bucket that cannot be accessed.

    Example:
        >>> from satmip_jax.inference.export.run import export
        >>> [file.name for file in export(workdir, "exported", half=True)]
        ['README.md', 'config.json', 'model.safetensors', 'schema.json']
    """
    if format not in FORMATS:
        raise ExportError(f"no format {format!r}: choose one of {', '.join(FORMATS)}")
    if half and format in ("stablehlo", "onnx"):
        dtype = "float32" if format == "onnx" else "the dtype of the run"
        raise ExportError(f"the program computes in {dtype}: omit --half")
    target = as_path(out)
    check_access(target)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ExportError(f"{target} exists and is not an empty folder: choose another for --out")
    model = load_model(path)
    scores = _scores_of(model, model_folder(path) / SCORES_FILE)
    converted = onnx_program(model) if format == "onnx" else b""
    with _local_folder(target) as folder:
        if format == "safetensors":
            _write_whole(model, folder, half)
        elif format == "timm":
            _write_timm(model, folder, half)
        elif format == "onnx":
            write_atomically(folder / ONNX_FILE, converted)
        else:
            program = image_program(model)
            write_atomically(folder / STABLEHLO_FILE, bytes(program.serialize()))
        calibration = read_calibration(model) if format == "safetensors" else None
        if calibration:
            calibration.save(folder / CALIBRATION_FILE)
        if scores:
            write_scores(folder / SCORES_FILE, scores)
        write_atomically(
            folder / CARD_FILE, write_card(model, format, scores, half, licence, calibration)
        )
        names = sorted(file.name for file in folder.iterdir())
    return [target / name for name in names]


def image_program(model: Model) -> jax_export.Exported:
    """Return the image encoder as a StableHLO program with a symbolic number of images.

    It takes uint8 (n, s, s, 3) in RGB of the size of the model's images, includes normalization
    and parameters, and returns float32 (n, d).

    Args:
        model: encoders and parameters.
    """
    target = Target("cpu")  # the plain form of every layer, which runs on any platform
    towers = build_towers(model.config, model.schema, build_method(model.config), target)
    plain = Model(model.config, model.schema, towers, model.params, model.mesh)
    params = jax.device_get(model.params)
    side = model.config.image.size
    (count,) = jax_export.symbolic_shape("n")
    images = jax.ShapeDtypeStruct((count, side, side, 3), jnp.uint8)
    program = jax.jit(lambda images: encode_images(plain, params, images))
    return jax_export.export(program, platforms=PLATFORMS)(images)


@contextmanager
def _local_folder(target: AnyPath) -> Iterator[Path]:
    """Yield the folder to write; for a bucket one on the disk, which is then uploaded."""
    if is_remote(target):
        with TemporaryDirectory(prefix="satmip-") as folder:
            yield Path(folder)
            put_folder(Path(folder), target)
        return
    target.mkdir(parents=True, exist_ok=True)
    yield Path(target)


def _write_whole(model: Model, folder: Path, half: bool) -> None:
    params = {name: np.asarray(x) for name, x in named_leaves(model.params).items()}
    write_tensors(folder / WEIGHTS_FILE, params, half=half)
    # paths of the machine that it was trained on concern nobody else
    config = vary(model.config, {"data.dir": default_config().data.dir})
    _write_json(
        folder / CONFIG_FILE,
        {
            "format": FORMAT,
            "library_name": "satmip-jax",
            "version": satmip_jax.__version__,
            "model": model.name,
            "step": model.step,
            "planned": model.planned,
            "config": config.to_dict(),
        },
    )
    model.schema.save(folder / SCHEMA_FILE)


def _write_timm(model: Model, folder: Path, half: bool) -> None:
    vit: Any = model.towers.image_encoder
    state = to_timm(jax.device_get(model.params["image_encoder"]), vit)
    write_tensors(folder / WEIGHTS_FILE, state, half=half, layout="pt")
    schema = model.schema
    config = timm_config(vit, model.config.image.size, schema.image_mean, schema.image_std)
    _write_json(folder / CONFIG_FILE, config)


def _write_json(path: Path, value: dict[str, Any]) -> None:
    write_atomically(path, json.dumps(value, indent=2, sort_keys=True) + "\n")


def _scores_of(model: Model, file: AnyPath) -> list[Score]:
    """Return the scores of the exported checkpoint; those of other steps and models say nothing."""
    rows = read_scores(file) if file.is_file() else []
    return [row for row in rows if row.model == model.name and row.step == model.step]
