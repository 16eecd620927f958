"""Parameters as a safetensors file: names, shapes and values, and nothing that is executed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from satmip_jax.errors import SatmipError
from satmip_jax.runtime.files import write_atomically

FLOATS = ("F32", "F16", "BF16")  # dtypes that are read
MAX_LISTED = 10  # tensors in a message


class WeightsError(SatmipError, ValueError):
    """A file of parameters that cannot be written or used; the message names file and tensors."""


def write_tensors(
    path: str | Path,
    tensors: Mapping[str, np.ndarray],
    *,
    half: bool = False,
    layout: str = "satmip",
) -> None:
    """Write parameters to a safetensors file, at once or not at all.

    The same parameters give the same bytes.

    Args:
        path: the file; its folder must exist.
        tensors: name -> float32 array.
        half: store float16, in half the space.
        layout: whose names the tensors have, for the header: "satmip", or "pt" for PyTorch.

    Raises:
        WeightsError: values are not finite, or too large for float16.
        OSError: the file cannot be written.

    Example:
        >>> from satmip_jax.checkpoints.safetensors_file import read_tensors, write_tensors
        >>> write_tensors("model.safetensors", {"kernel": np.ones((2, 3), np.float32)}, half=True)
        >>> read_tensors("model.safetensors", {"kernel": (2, 3)})["kernel"].dtype
        dtype('float32')
    """
    stored = {}
    for name, tensor in tensors.items():
        with np.errstate(over="ignore"):  # reported below
            stored[name] = np.array(tensor, np.float16 if half else np.float32, order="C")
        if not np.isfinite(stored[name]).all():
            remedy = "store float32 instead" if half else "export another checkpoint"
            raise WeightsError(
                f"{path}: {name} has values that {stored[name].dtype} cannot hold, up to "
                f"{np.abs(tensor).max():g}: {remedy}"
            )
    # one text only: safetensors writes several in an order that differs from file to file
    write_atomically(path, save(stored, metadata={"format": layout}))


def read_tensors(path: str | Path, expected: Mapping[str, Sequence[int]]) -> dict[str, np.ndarray]:
    """Read parameters from a safetensors file, which may be untrusted.

    The header is compared with `expected` before a tensor is allocated.

    Args:
        path: the file.
        expected: name -> shape of every tensor that the file must hold; it may hold no other.

    Returns:
        Name -> float32 array, in the order of `expected`.

    Raises:
        FileNotFoundError: there is no such file.
        WeightsError: the file is damaged, or holds tensors of other names, shapes or dtypes, or
            values that are not finite.
    """
    path = Path(path)
    with _opened(path) as file:
        _compare(path, expected, _header(file))
        return _read(path, file, expected)


def read_header(path: str | Path) -> dict[str, tuple[str, list[int]]]:
    """Return dtype and shape of every tensor in a safetensors file; no tensor is read.

    Args:
        path: the file, which may be untrusted.

    Raises:
        FileNotFoundError: there is no such file.
        WeightsError: it is no intact safetensors file.
    """
    with _opened(Path(path)) as file:
        return _header(file)


def read_part(path: str | Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Read some parameters from a safetensors file, whose shapes `read_header` has shown to fit.

    Args:
        path: the file.
        names: of the tensors.

    Returns:
        Name -> float32 array.

    Raises:
        FileNotFoundError: there is no such file.
        WeightsError: a tensor is missing, of no float dtype, or has values that are not finite.
    """
    path, names = Path(path), list(names)
    with _opened(path) as file:
        stored = _header(file)
        for name in names:
            if name not in stored or stored[name][0] not in FLOATS:
                found = stored[name][0] if name in stored else "missing"
                raise WeightsError(f"{path}: {name} is {found}, expected {' or '.join(FLOATS)}")
        return _read(path, file, names)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    try:
        with safe_open(path, framework="numpy") as file:
            yield file
    except SafetensorError as error:
        raise WeightsError(
            f"{path} is not an intact safetensors file: {error}; copy or export it again"
        ) from error


def _read(path: Path, file: Any, names: Iterable[str]) -> dict[str, np.ndarray]:
    tensors = {name: file.get_tensor(name).astype(np.float32) for name in names}
    broken = [name for name, tensor in tensors.items() if not np.isfinite(tensor).all()]
    if broken:
        raise WeightsError(
            f"{path} holds values that are not finite in {_listed(broken, ', ')}; export it again"
        )
    return tensors


def _header(file: Any) -> dict[str, tuple[str, list[int]]]:
    """Return dtype and shape of every tensor, without reading one."""
    slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  # no mapping
    return {name: (str(part.get_dtype()), part.get_shape()) for name, part in slices.items()}


def _compare(
    path: Path, expected: Mapping[str, Sequence[int]], stored: Mapping[str, tuple[str, list[int]]]
) -> None:
    """Raise WeightsError with each tensor that differs in presence, shape or dtype."""
    problems = [f"missing {name}" for name in sorted(expected.keys() - stored.keys())]
    problems += [f"unexpected {name[:200]!r}" for name in sorted(stored.keys() - expected.keys())]
    for name in sorted(expected.keys() & stored.keys()):
        dtype, shape = stored[name]
        if shape != [*expected[name]]:
            problems.append(f"{name} has shape {shape}, expected {[*expected[name]]}")
        if dtype not in FLOATS:
            problems.append(f"{name} is {dtype}, expected {' or '.join(FLOATS)}")
    if problems:
        raise WeightsError(
            f"{path} does not fit its config, {len(problems)} problems:\n  "
            f"{_listed(problems)}\nUse the config.json and schema.json that were written with it."
        )


def _listed(items: Sequence[str], separator: str = "\n  ") -> str:
    return separator.join([*items[:MAX_LISTED], *(["..."] if len(items) > MAX_LISTED else [])])
