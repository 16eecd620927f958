"""Published weights of an image encoder in a safetensors file: timm, Hugging Face, open_clip."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np

from satmip_jax.checkpoints.published_facts import read_facts
from satmip_jax.checkpoints.safetensors_file import WeightsError, read_header, read_part
from satmip_jax.models.published_names import Statistics, map_names
from satmip_jax.models.published_vit import check_options, check_shapes
from satmip_jax.models.vit import ViT

FILES = ("model.safetensors", "open_clip_model.safetensors")  # in folders of a model hub
PICKLES = (".pth", ".pt", ".bin", ".ckpt", ".pkl", ".npz", ".npy", ".h5", ".msgpack")
CONVERT = (
    "import torch, safetensors.torch as s; s.save_file({k: v.contiguous() for k, v in "
    "torch.load('%s', weights_only=True).items()}, 'model.safetensors')"
)


@dataclass(frozen=True)
class PretrainedWeights:
    """Weights of an image encoder, and what is known of them.

    Attributes:
        family: whose names the file has; "satmip" for a model of this package.
        source: the file, or the model.
        digest: SHA-256 of the file, or of the model's parameters.
        state: timm's name -> float32 array.
        statistics: mean and standard deviation of the pixels that the weights expect.
        statistics_from: what states them.
        sources: timm's name -> names in the file.
        left_out: names in the file that are not used -> reason.
        notes: for the user.
    """

    family: str
    source: str
    digest: str
    state: Mapping[str, np.ndarray]
    statistics: Statistics
    statistics_from: str
    sources: Mapping[str, Sequence[str]]
    left_out: Mapping[str, str]
    notes: Sequence[str]

    @property
    def identity(self) -> str:
        """Family and digest, by which a config names the weights."""
        return identity(self.family, self.digest)


def identity(family: str, digest: str) -> str:
    """Return the text by which a config names weights."""
    return f"{family} sha256:{digest}"


def find_file(path: str | PathLike[str]) -> Path:
    """Return the safetensors file that a path means.

    Args:
        path: the file, or a folder in the layout of a model hub that holds it.

    Raises:
        WeightsError: it is no safetensors file, or the folder has none or several.
    """
    path = Path(path)
    if path.is_dir():
        named = [path / name for name in FILES if (path / name).is_file()]
        found = named or sorted(path.glob("*.safetensors"))
        if len(found) != 1:
            which = "several .safetensors files: name one" if found else "no .safetensors file"
            raise WeightsError(f"{path} has {which}")
        path = found[0]
    if path.suffix in PICKLES:
        raise WeightsError(
            f"{path} is not read, because reading such a file can execute code. If you trust it, "
            f'convert it where PyTorch is installed: python -c "{CONVERT % path.name}"'
        )
    if not path.is_file():
        raise WeightsError(f"there is no file or folder {path}")
    return path


def file_identity(path: str | PathLike[str]) -> str:
    """Return the identity of the weights in a file, see `PretrainedWeights`; none is read.

    Raises:
        WeightsError: see `read_pretrained`.
    """
    file = find_file(path)
    try:
        return identity(map_names(read_header(file)).family.name, _digest(file))
    except ValueError as error:
        raise _refusal(file, error) from error


def read_pretrained(path: str | PathLike[str], model: ViT) -> PretrainedWeights:
    """Read the weights of an image encoder.

    The file may be untrusted: its header is compared with the model before a tensor is read.

    Args:
        path: see `find_file`.
        model: that the weights are for.

    Raises:
        WeightsError: the file cannot be read, is of no known family, or does not fit the model;
            the message says what to do.
    """
    file = find_file(path)
    header = read_header(file)
    try:
        names = map_names(header)
        facts = read_facts(file)
        shapes = {
            name: joined_shape([header[source][1] for source in sources])
            for name, sources in names.sources.items()
        }
        notes = check_shapes(shapes, model)
        notes += check_options(facts.heads, facts.activation, model)
    except ValueError as error:
        raise _refusal(file, error) from error
    tensors = read_part(file, (source for sources in names.sources.values() for source in sources))
    state = {
        name: np.concatenate([tensors.pop(source) for source in sources])
        for name, sources in names.sources.items()
    }
    assumed = f"assumed, the usual ones of {names.family.name}"
    return PretrainedWeights(
        names.family.name,
        str(file),
        _digest(file),
        state,
        facts.statistics or names.family.statistics,
        f"by {facts.statistics_from}" if facts.statistics else assumed,
        names.sources,
        names.left_out,
        notes,
    )


def joined_shape(shapes: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """Return the shape of arrays that are joined on their first axis.

    Raises:
        ValueError: their other axes differ.
    """
    first, *others = shapes
    if any([*shape[1:]] != [*first[1:]] or not shape for shape in (first, *others) if others):
        raise ValueError(f"queries, keys and values have shapes {', '.join(map(str, shapes))}")
    return (sum(shape[0] for shape in shapes), *first[1:]) if others else tuple(first)


def _refusal(file: Path, error: Exception) -> WeightsError:
    return WeightsError(f"the weights in {file} cannot be used: {error}")


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
