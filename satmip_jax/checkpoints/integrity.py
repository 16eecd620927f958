"""Whether a checkpoint on disk is whole: every leaf there, of its shape, finite, and as it was.

Orbax checksums its indices, not the values. So a checkpoint's `run` item holds a record of every
leaf: dtype, shape and a checksum of what was in memory when it was saved. Reading the files back
must give the same. The checksum is a sum over elements, so it does not depend on how an array is
laid out over devices and processes, and takes nothing to compile.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from satmip_jax.errors import SatmipError
from satmip_jax.runtime.process_pool import cores

PyTree = Any
Record = dict[str, list[Any]]  # name of a leaf -> [dtype, shape, checksum]

MAX_JSON = 64 << 20  # bytes; a record takes about 100 a leaf
_CHUNK = 1 << 15  # elements summed at a time: they stay in the processor's cache
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio, spreads consecutive numbers
_WORDS = {1: np.uint8, 2: np.uint16, 4: np.uint32}


class DamagedError(SatmipError, ValueError):
    """A checkpoint is not whole; the message names what is missing or wrong."""


def leaves(tree: PyTree) -> dict[str, Any]:
    """Leaves by dotted name, the same for a pytree and for its files."""

    def name(key: Any) -> str:
        return str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key))))

    found, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {".".join(map(name, path)): leaf for path, leaf in found}


# --- checksums ------------------------------------------------------------------------------------


def _sums(block: np.ndarray, start: Sequence[int], shape: Sequence[int]) -> np.ndarray:
    """[sum of each element's bits times an odd number of its position, how many are not finite].

    Modulo 2^64. As the numbers are odd, no change of a single element leaves the sum as it is.

    Args:
        block: a part of an array, of at most 32 bits an element; it may be all of it.
        start, shape: where the part begins, and the shape of the whole.
    """
    total = np.zeros(2, np.uint64)
    # the last axis along which it is cut: what follows lies in one piece in the whole
    cut = max((a for a in range(block.ndim) if block.shape[a] != shape[a]), default=0)
    for outer in np.ndindex(block.shape[:cut]):
        run = block[outer].reshape(-1)
        corner = [a + b for a, b in zip(start, outer, strict=False)] + [*start[cut:]]
        first = int(np.ravel_multi_index(corner, shape)) if run.size and shape else 0
        for i in range(0, run.size, _CHUNK):
            part = run[i : i + _CHUNK]
            position = np.arange(first + i, first + i + part.size, dtype=np.uint64)
            position *= _GOLDEN
            position |= np.uint64(1)
            position *= part.view(_WORDS[part.dtype.itemsize])
            total[:1] += position.sum(dtype=np.uint64)
            if jnp.issubdtype(part.dtype, jnp.floating):
                total[1] += np.uint64(part.size - np.count_nonzero(np.isfinite(part)))
    return total


def record(state: PyTree) -> Record:
    """Describe every leaf of a state; waits until it is there.

    Args:
        state: pytree of `jax.Array`, on the devices of any number of processes.

    Raises:
        FloatingPointError: leaves hold values that are not finite; the message names them.

    Example:
        >>> record({"w": w})
        {'w': ['float32', [384, 512], '0c3fd2a19b7e4410']}
    """
    named = leaves(state)
    with ThreadPoolExecutor(cores()) as pool:
        sums = np.stack([*pool.map(_local_sums, named.values())])
    if jax.process_count() > 1:
        words = multihost_utils.process_allgather(sums.view(np.uint32))  # jax has no 64 bits
        sums = np.ascontiguousarray(words).view(np.uint64).sum(axis=0, dtype=np.uint64)
    described, broken = {}, []
    for (name, x), (checksum, bad) in zip(named.items(), sums.tolist(), strict=True):
        described[name] = [str(x.dtype), [*x.shape], f"{checksum:016x}"]
        if bad:
            broken.append(f"{name} ({bad} of {x.size})")
    if broken:
        raise FloatingPointError(f"values that are not finite in {_listed(broken)}")
    return described


def _local_sums(x: jax.Array) -> np.ndarray:
    """The sums of those parts of an array that are this process's to count."""
    total = np.zeros(2, np.uint64)
    for shard in x.addressable_shards:
        if shard.replica_id == 0:
            start = [part.start or 0 for part in shard.index]
            total += _sums(np.asarray(shard.data), start, x.shape)
    return total


def _listed(found: list[str]) -> str:
    return "; ".join(found[:5]) + (f"; and {len(found) - 5} more" if len(found) > 5 else "")


# --- reading back ---------------------------------------------------------------------------------


def read_json(path: Path) -> Any:
    """Read a small JSON file of a checkpoint, or raise DamagedError."""
    try:
        if (size := path.stat().st_size) > MAX_JSON:
            raise DamagedError(f"{path} takes {size:,} bytes, more than {MAX_JSON:,}")
        return json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise DamagedError(f"{path} is missing") from error
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedError(f"{path} cannot be read: {error}") from error


def checked_record(run: Any) -> Record:
    """The record in a checkpoint's `run` item, or DamagedError if it is none."""
    match run:
        case {"leaves": dict(named)} if all(map(_is_entry, named.values())):
            return named
    raise DamagedError("its record of leaves cannot be read")


def _is_entry(entry: Any) -> bool:
    match entry:
        case [str(), [*shape], str()]:
            return all(type(n) is int and n >= 0 for n in shape)
    return False


def problem(
    folder: Path, expected: Mapping[str, list[Any]], cancelled: Callable[[], bool] = lambda: False
) -> str:
    """Read this process's share of a checkpoint's leaves back and say what is wrong with them.

    Args:
        folder: of the item `state`.
        expected: what `record` gave; the checksum "" is not compared.
        cancelled: asked before each leaf; the answer is then about the leaves before.

    Returns:
        "" if all is well, or the names of missing, misshapen or changed leaves.
    """
    try:
        read_json(folder / "_METADATA")
    except DamagedError as error:
        return str(error)
    share = list(expected.items())[jax.process_index() :: jax.process_count()]
    found = []
    for name, (dtype, shape, checksum) in share:
        if cancelled():
            break
        if text := _leaf_problem(folder, name, dtype, tuple(shape), checksum):
            found.append(f"{name} {text}")
    return _listed(found)


def open_leaf(folder: Path, name: str) -> Any:
    """The `tensorstore.TensorStore` of one leaf below the folder of the item `state`."""
    import tensorstore

    store = {"driver": "ocdbt", "base": folder.as_uri() + "/", "path": f"{name}/"}
    return tensorstore.open({"driver": "zarr", "kvstore": store}, read=True).result()


def _leaf_problem(
    folder: Path, name: str, dtype: str, shape: tuple[int, ...], checksum: str
) -> str:
    try:
        array = open_leaf(folder, name)
    except ValueError as error:
        return "is missing" if "NOT_FOUND" in str(error) else f"cannot be opened: {_short(error)}"
    stored = array.dtype.name
    if (stored, array.shape) != (dtype, shape):  # before anything of a stranger's size is read
        return f"is {stored}{[*array.shape]}, expected {dtype}{[*shape]}"
    chunk = [int(n or 1) for n in array.chunk_layout.read_chunk.shape or ()]
    if math.prod(chunk) > max(1, math.prod(shape)):
        return f"is stored in pieces of {chunk}, larger than itself"
    try:
        values = array.read().result()
    except ValueError as error:
        return f"cannot be read: {_short(error)}"
    sums = _sums(np.asarray(values), [0] * len(shape), shape).tolist()
    if checksum not in ("", f"{sums[0]:016x}"):
        return "has changed: its checksum differs"
    return f"holds {sums[1]} values that are not finite" if sums[1] else ""


def _short(error: Exception) -> str:
    """The first part of tensorstore's message, which goes on with the whole specification."""
    return str(error).split(" [")[0][:300]
