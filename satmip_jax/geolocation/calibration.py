"""`locate.json`: what makes probabilities of cosines, fitted by `satmip calibrate`."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from typing import Any

import numpy as np

from satmip_jax.errors import SatmipError
from satmip_jax.evaluation.model import Model
from satmip_jax.runtime.files import FileContentError, read_json_object, write_atomically

FILE = "locate.json"
FORMAT = 1
BIN = 0.25  # degrees, side of the bins of the train split's places
_MAX_BINS = 1_000_000
_MAX_BYTES = 64 << 20
_MAX_LABELS = 10_000


class CalibrationError(SatmipError, ValueError):
    """A file that holds no calibration, or that of another model; the message says what to do."""


@dataclass(frozen=True)
class Choice:
    """Calibration of a choice among a few candidates: months, or sensors.

    Attributes:
        scale: of the cosine.
        weight: of the logarithm of the prior.
        labels: names of the candidates.
        counts: how often the train split has each.
        examples: values of the field that stand for each candidate.
    """

    scale: float
    weight: float
    labels: tuple[str, ...]
    counts: tuple[int, ...]
    examples: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Calibration:
    """Calibration of a model on a split.

    Attributes:
        model: name of the model.
        step: of its checkpoint.
        data: name of the data set.
        split: that it was fitted on.
        fields: that the candidates of places have: "location", or "location+country_code".
        train_scale: of the cosine, with the places of the train split as prior.
        train_weight: of the logarithm of this prior's density.
        bandwidth: of this prior, km.
        uniform_scale: of the cosine, with a uniform prior.
        region: of the train split's places: west, south, east, north.
        bins: column, row and count of the bins of these places, `BIN` degrees a side, from 180 W
            and 90 S.
        month: None if the model takes in no timestamps.
        sensor: None if the model takes in no sensors.
        scores: rows of the table of results.
        images: number of images that it was fitted and scored on; 0 if it is not recorded.
        gsd: least and greatest metres per pixel of the train split's stored images, without the 5 %
            at either end; None if it is not recorded.
    """

    model: str
    step: int | None
    data: str
    split: str
    fields: str
    train_scale: float
    train_weight: float
    bandwidth: float
    uniform_scale: float
    region: tuple[float, float, float, float]
    bins: tuple[tuple[int, int, int], ...]
    month: Choice | None = None
    sensor: Choice | None = None
    scores: tuple[Mapping[str, Any], ...] = field(default=())
    images: int = 0
    gsd: tuple[float, float] | None = None

    def is_of(self, model: Model) -> bool:
        """Return whether this is the calibration of a model's checkpoint."""
        return (self.model, self.step) == (model.name, model.step)

    def train_places(self) -> tuple[np.ndarray, np.ndarray]:
        """Return longitude and latitude of the bins, (n, 2), and their counts."""
        return bin_centres(self.bins)

    def save(self, path: str | PathLike[str]) -> None:
        """Write the file atomically."""
        data = {"format": FORMAT, **dataclasses.asdict(self)}
        write_atomically(path, json.dumps(data, allow_nan=False) + "\n")

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Calibration:
        """Read and check a file, which may be untrusted.

        Raises:
            FileNotFoundError: there is no such file.
            CalibrationError: it holds no calibration.
        """
        try:
            data = read_json_object(path, max_bytes=_MAX_BYTES, allow_nan=False)
            return cls(**_checked(data))
        except (FileContentError, KeyError, TypeError, ValueError) as error:
            reason = f"{error} is missing" if isinstance(error, KeyError) else error
            raise CalibrationError(
                f"{path} is no calibration: {reason}; write it with `satmip calibrate`"
            ) from error


def bin_places(places: np.ndarray) -> tuple[tuple[int, int, int], ...]:
    """Return the bins of places (n, 2) in degrees, see `Calibration.bins`.

    Example:
        >>> from satmip_jax.geolocation.calibration import bin_places
        >>> bin_places(np.array([[-180.0, -90.0], [-179.9, -89.9], [0.1, 0.1]]))
        ((0, 0, 2), (720, 360, 1))
    """
    columns = np.floor((places[:, 0] + 180) / BIN).astype(int) % round(360 / BIN)
    rows = np.minimum(np.floor((places[:, 1] + 90) / BIN).astype(int), round(180 / BIN) - 1)
    cells, counts = np.unique(np.stack([columns, rows], 1), axis=0, return_counts=True)
    return tuple((int(c), int(r), int(n)) for (c, r), n in zip(cells, counts, strict=True))


def bin_centres(bins: Sequence[tuple[int, int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """Return longitude and latitude of bins, (n, 2), and their counts."""
    table = np.array(bins, np.float64).reshape(-1, 3)
    return (table[:, :2] + 0.5) * BIN - np.array([180.0, 90.0]), table[:, 2]


def _checked(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of `Calibration`; raise ValueError, TypeError or KeyError."""
    if data["format"] != FORMAT:
        raise ValueError(f"format {data['format']!r}, expected {FORMAT}")
    step = data["step"]
    if step is not None and type(step) is not int:
        raise ValueError("step is no whole number")
    if data["fields"] not in ("location", "location+country_code"):
        raise ValueError(f"fields {data['fields']!r:.60}")
    bins = np.array(data["bins"], np.int64)
    if not 0 < len(bins) <= _MAX_BINS or bins.shape[1:] != (3,):
        raise ValueError("bins are not rows of three numbers")
    if bins.min() < 0 or (bins.max(axis=0)[:2] >= (360 / BIN, 180 / BIN)).any():
        raise ValueError("bins lie outside the Earth")
    region = tuple(_number(data["region"][i], -360, 540) for i in range(4))
    if not (region[0] < region[2] and -90 <= region[1] < region[3] <= 90):
        raise ValueError("region is empty")
    if not isinstance(data["scores"], list) or not all(isinstance(x, dict) for x in data["scores"]):
        raise ValueError("scores are no list of objects")
    return {
        **{name: _text(data[name]) for name in ("model", "data", "split", "fields")},
        **{name: _number(data[name], 0, 1e4) for name in _SCALES},
        "bandwidth": _number(data["bandwidth"], 1, 1e4),
        "step": step,
        "region": region,
        "bins": tuple(map(tuple, bins.tolist())),
        "month": _choice(data["month"]),
        "sensor": _choice(data["sensor"]),
        "scores": tuple(data["scores"]),
        "images": int(_number(data.get("images", 0), 0, 2**40)),
        "gsd": _range(data.get("gsd")),
    }


_SCALES = ("train_scale", "train_weight", "uniform_scale")


def _choice(data: Any) -> Choice | None:
    if data is None:
        return None
    labels = tuple(_text(x) for x in data["labels"][:_MAX_LABELS])
    counts = tuple(int(_number(x, 0, 2**40)) for x in data["counts"][:_MAX_LABELS])
    examples = tuple(tuple(map(_text, x[:100])) for x in data["examples"][:_MAX_LABELS])
    if not (len(labels) == len(counts) == len(examples) > 0) or not all(examples):
        raise ValueError("a choice has not one count and one list of examples per label")
    scale, weight = (_number(data[name], 0, 1e4) for name in ("scale", "weight"))
    return Choice(scale, weight, labels, counts, examples)


def _range(data: Any) -> tuple[float, float] | None:
    if data is None:
        return None
    low, high = (_number(x, 1e-3, 1e6) for x in data)
    if low > high:
        raise ValueError(f"gsd {low:g} to {high:g} is empty")
    return low, high


def _number(value: Any, low: float, high: float) -> float:
    if type(value) not in (int, float) or not math.isfinite(value) or not low <= value <= high:
        raise ValueError(f"{value!r:.60} is no number from {low:g} to {high:g}")
    return float(value)


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > 256 or not value.isprintable():
        raise ValueError(f"{value!r:.60} is no short text")
    return value
