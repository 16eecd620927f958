"""Integrity of a checkpoint on disk: every leaf present, of its shape, finite and unchanged.

Orbax checksums its indices, not the values. The `run` item of a checkpoint therefore holds a record
of every leaf: dtype, shape and a checksum of the values in memory when it was saved. The files must
give the same. The checksum is a sum over elements, so it does not depend on how an array is sharded
over devices and processes, and it needs no compilation. The `run` item has a checksum of its own.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from satmip_jax.distributed.sharding import leaf_name
from satmip_jax.errors import SatmipError
from satmip_jax.runtime.files import FileContentError, read_json
from satmip_jax.runtime.paths import AnyPath, is_remote
from satmip_jax.runtime.process_pool import cores

PyTree = Any
Record = dict[str, list[Any]]  # name of a leaf -> [dtype, shape, checksum]

MAX_LISTED = 5  # leaves in a message
_CHUNK = 1 << 15  # elements summed at a time: they stay in the processor's cache
_INDEX_BYTES = 100_000_000  # of the index of a checkpoint, kept while its leaves are read
_REQUESTS = 8  # leaves read at a time from a bucket
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio, spreads consecutive numbers
_WORDS = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


class DamagedError(SatmipError, ValueError):
    """A damaged checkpoint; the message names what is missing or wrong."""


def named_leaves(tree: PyTree) -> dict[str, Any]:
    """Return the leaves by dotted name, which is also their name on disk.

    Example:
        >>> from satmip_jax.checkpoints.integrity import named_leaves
        >>> named_leaves({"params": {"kernel": 1, "bias": 2}})
        {'params.bias': 2, 'params.kernel': 1}
    """
    return {leaf_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


# --- checksums ------------------------------------------------------------------------------------


def record(state: PyTree) -> Record:
    """Return the dtype, shape and checksum of every leaf; waits until they are computed.

    Args:
        state: pytree of `jax.Array`, on the devices of any number of processes.

    Raises:
        FloatingPointError: leaves hold values that are not finite; the message names them.

    Example:
        >>> from satmip_jax.checkpoints.integrity import record
        >>> record({"w": jnp.ones((2, 3))})
        {'w': ['float32', [2, 3], 'ae1ca2ace1000000']}
    """
    named = named_leaves(state)
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
    """Sum over the shards that this process counts; each part of the array is counted once."""
    total = np.zeros(2, np.uint64)
    for shard in x.addressable_shards:
        if shard.replica_id == 0:
            start = [part.start or 0 for part in shard.index]
            total += _sums(np.asarray(shard.data), start, x.shape)
    return total


def _sums(block: np.ndarray, start: Sequence[int], shape: Sequence[int]) -> np.ndarray:
    """Return [sum of each element's bits times an odd number of its position, values not finite].

    Modulo 2^64. As the factors are odd, every change of a single element changes the sum.

    Args:
        block: a part of an array, or all of it; at most 64 bits an element.
        start: indices of the first element of the part.
        shape: of the whole array.
    """
    total = np.zeros(2, np.uint64)
    # the last axis along which the array is sharded: what follows is contiguous in the whole array
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
            if jnp.issubdtype(part.dtype, jnp.inexact):
                total[1] += np.uint64(part.size - np.count_nonzero(np.isfinite(part)))
    return total


def _listed(names: list[str]) -> str:
    more = len(names) - MAX_LISTED
    return "; ".join(names[:MAX_LISTED]) + (f"; and {more} more" if more > 0 else "")


# --- reading back ---------------------------------------------------------------------------------


def with_checksum(run: Mapping[str, Any]) -> dict[str, Any]:
    """Return a `run` item with the checksum of its other entries."""
    rest = {name: value for name, value in run.items() if name != "checksum"}
    text = json.dumps(rest, sort_keys=True)
    return {**rest, "checksum": hashlib.sha256(text.encode()).hexdigest()}


def read_run(folder: AnyPath) -> Any:
    """Return the `run` item of the checkpoint in `folder`, or raise DamagedError.

    Checkpoints of earlier versions have no checksum of it.
    """
    path = folder / "run" / "metadata"
    run = _read_json(path)
    if isinstance(run, dict) and run.get("checksum", "") not in (
        "",
        with_checksum(run)["checksum"],
    ):
        raise DamagedError(f"{path} has changed: its checksum differs")
    return run


def _read_json(path: AnyPath) -> Any:
    try:
        return read_json(path)
    except FileNotFoundError as error:
        raise DamagedError(f"{path} is missing") from error
    except OSError as error:
        raise DamagedError(f"{path} cannot be read: {error}") from error
    except FileContentError as error:
        raise DamagedError(str(error)) from error


def checked_record(run: Any) -> Record:
    """Return the record in a checkpoint's `run` item, or raise DamagedError if it has none."""
    match run:
        case {"leaves": dict(named)} if all(map(_is_entry, named.values())):
            return named
    raise DamagedError("its record of leaves cannot be read")


def _is_entry(entry: Any) -> bool:
    match entry:
        case [str(), [*shape], str()]:
            return all(type(n) is int and n >= 0 for n in shape)
    return False


def find_problem(
    folder: AnyPath,
    expected: Mapping[str, list[Any]],
    cancelled: Callable[[], bool] = lambda: False,
) -> str:
    """Read this process's share of a checkpoint's leaves, and describe what is wrong with them.

    Args:
        folder: of the item `state`.
        expected: the leaves to read, with their entries from `record`.
        cancelled: called before each leaf; once it returns True the rest is not read.

    Returns:
        "" if all is well, or the names of missing, misshapen or changed leaves.
    """
    notes = folder / "array_metadatas" / f"process_{jax.process_index()}"
    try:
        _read_json(folder / "_METADATA")
        if notes.exists():
            _read_json(notes)
    except DamagedError as error:
        return str(error)
    import tensorstore

    context = tensorstore.Context({"cache_pool": {"total_bytes_limit": _INDEX_BYTES}})

    def problem_of(leaf: tuple[str, list[Any]]) -> str:
        name, (dtype, shape, checksum) = leaf
        if cancelled():
            return ""
        problem = _leaf_problem(folder, name, dtype, tuple(shape), checksum, context)
        return problem and f"{name} {problem}"

    share = list(expected.items())[jax.process_index() :: jax.process_count()]
    with ThreadPoolExecutor(_REQUESTS if is_remote(folder) else 1) as pool:
        return _listed([problem for problem in pool.map(problem_of, share) if problem])


def open_leaf(folder: AnyPath, name: str, context: Any = None) -> Any:
    """Open the `tensorstore.TensorStore` of one leaf below the folder of the item `state`.

    Args:
        folder: of the item `state`.
        name: of the leaf.
        context: `tensorstore.Context` of several leaves, which then read the index once.
    """
    import tensorstore

    store = {"driver": "ocdbt", "base": folder.as_uri() + "/", "path": f"{name}/"}
    spec = {"driver": "zarr", "kvstore": store}
    return tensorstore.open(spec, read=True, context=context).result()


def _leaf_problem(
    folder: AnyPath, name: str, dtype: str, shape: tuple[int, ...], checksum: str, context: Any
) -> str:
    try:
        array = open_leaf(folder, name, context)
    except ValueError as error:
        return "is missing" if "NOT_FOUND" in str(error) else f"cannot be opened: {_short(error)}"
    stored = array.dtype.name
    if (stored, array.shape) != (dtype, shape):  # before anything of an untrusted size is read
        return f"is {stored}{[*array.shape]}, expected {dtype}{[*shape]}"
    chunk = [int(n or 1) for n in array.chunk_layout.read_chunk.shape or ()]
    if math.prod(chunk) > max(1, math.prod(shape)):
        return f"is stored in chunks of {chunk}, larger than itself"
    try:
        values = array.read().result()
    except ValueError as error:
        return f"cannot be read: {_short(error)}"
    sums = _sums(np.asarray(values), [0] * len(shape), shape).tolist()
    if checksum != f"{sums[0]:016x}":
        return "has changed: its checksum differs"
    return f"holds {sums[1]} values that are not finite" if sums[1] else ""


def _short(error: Exception) -> str:
    """Return the first part of tensorstore's message; its specification follows."""
    return str(error).split(" [")[0][:300]
