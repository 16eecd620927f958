"""The work of `satmip locate` and `satmip calibrate`: files in, tables and files out."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from satmip_jax.errors import SatmipError
from satmip_jax.evaluation.loading import load_model, model_folder
from satmip_jax.geography.grid import parse_region
from satmip_jax.geolocation.calibrate import calibrate
from satmip_jax.geolocation.calibration import FILE
from satmip_jax.geolocation.locate import ImageLocation
from satmip_jax.geolocation.output import print_locations, print_scores, to_geojson, to_json
from satmip_jax.geolocation.pictures import MAX_MAPS, draw_maps, draw_reliability
from satmip_jax.inference.embedding import EmbeddingModel
from satmip_jax.inference.image_input import read_rows
from satmip_jax.runtime import compilation_cache
from satmip_jax.runtime.files import write_atomically
from satmip_jax.runtime.paths import AnyPath, absolute, as_path, is_remote
from satmip_jax.runtime.stores import check_access

log = logging.getLogger(__name__)

PICTURE = 160  # pixels, side of an image on a map


class LocateError(SatmipError, ValueError):
    """Options that do not fit; the message says why."""


def locate_files(
    model: str,
    images: Sequence[str],
    *,
    region: str | None = None,
    map_file: str | None = None,
    geojson: str | None = None,
    json_file: str | None = None,
    **options: Any,
) -> bool:
    """Print and write where images may be from.

    Args:
        model: see `load_model`.
        images: paths.
        region: see `parse_region`.
        map_file: PNG to draw maps to.
        geojson: file to write.
        json_file: file to write; "-" prints JSON instead of tables.
        **options: `cell`, `prior` and `top`, see `Locator.locate`.

    Returns:
        Whether every image could be used.

    Raises:
        LocateError: the region is none, or an image or a folder for a file is missing.
        GeolocationError: the model or the options do not fit.
    """
    try:
        bounds = parse_region(region) if region else None
    except ValueError as error:
        raise LocateError(f"--region {region}: {error}; give west,south,east,north") from None
    for file in (map_file, geojson, json_file):
        if file in (None, "-"):
            continue
        path = as_path(file)
        check_access(path)
        if not is_remote(path) and not absolute(path).parent.is_dir():
            raise LocateError(f"{path}: there is no such folder; create it first")
    _check_files(images)
    compilation_cache.enable()
    embedder = EmbeddingModel(load_model(model))
    results = embedder.locate(list(images), region=bounds, **options)
    found = [location for location in results if location is not None]
    if json_file != "-":
        print_locations(found)
    text = json.dumps([to_json(location) for location in found], indent=1, allow_nan=False)
    if json_file == "-":
        click.echo(text)
    elif json_file:
        write_atomically(json_file, text + "\n")
    if geojson:
        write_atomically(geojson, json.dumps(to_geojson(found), allow_nan=False) + "\n")
    shown = found[:MAX_MAPS]
    if map_file and shown:
        write_atomically(map_file, draw_maps(shown, _pictures(shown)))
        if (more := len(found) - MAX_MAPS) > 0:
            log.warning(f"{map_file} shows the first {MAX_MAPS} images; {more} more are not drawn")
    for file in (json_file, geojson, map_file if shown else None):
        if file not in (None, "-"):
            click.echo(f"{file} written", err=True)
    return len(found) == len(results)


def _check_files(images: Sequence[str]) -> None:
    """Raise `LocateError` for paths that are no files, before anything is encoded."""
    wrong = [path for path in images if not Path(path).is_file()]
    if not wrong:
        return
    if Path(wrong[0]).is_dir():
        raise LocateError(f"{wrong[0]} is a folder: give its images, such as {wrong[0]}/*.tif")
    more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
    raise LocateError(f"{wrong[0]}{more}: there is no such file; give existing images")


def _pictures(locations: Sequence[ImageLocation]) -> list[np.ndarray]:
    rows = read_rows([location.name for location in locations], 0, PICTURE)
    return list(rows.pixels)


def calibrate_model(
    model: str, data: str, split: str, out: str | None = None, diagram: str | None = None
) -> AnyPath:
    """Calibrate a model, print the scores, and write the calibration.

    Args:
        model: see `load_model`.
        data: folder written by `satmip prepare`.
        split: to fit and score on.
        out: file to write; by default `locate.json` in the folder of the model, on a disk or in a
            bucket.
        diagram: PNG of the reliability diagrams.

    Returns:
        The file of the calibration.

    Raises:
        LocateError: the file cannot be written there.
        StoreError: it is in a bucket that cannot be accessed.
        GeolocationError: see `geolocation.calibrate.calibrate`.
    """
    path = as_path(out) if out else model_folder(model) / FILE
    check_access(path)
    if not is_remote(path) and not os.access(absolute(path).parent, os.W_OK):
        raise LocateError(f"{path} cannot be written: give another file with --out")
    compilation_cache.enable()
    calibration, diagrams = calibrate(EmbeddingModel(load_model(model)), data, split=split)
    print_scores(calibration.scores)
    calibration.save(path)
    if diagram:
        points = [(one.statement, one.points) for one in diagrams]
        write_atomically(diagram, draw_reliability(points))
    return path
