"""Device memory of a training step, as compiled, and settings with which a step fits."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from satmip_jax.data.shard_dataset import ShardDataset
from satmip_jax.distributed.sharding import batch_sharding, make_mesh
from satmip_jax.errors import SatmipError
from satmip_jax.losses.ring import TILE
from satmip_jax.metadata.schema import Schema
from satmip_jax.metadata.statistics import StatsAccumulator
from satmip_jax.models import example_batch
from satmip_jax.objectives import build_method
from satmip_jax.training.step import Program, build_program

HEADROOM = 0.9  # share of a device's memory for the compiled step; the rest is for other arrays


class DeviceMemoryError(SatmipError, MemoryError):
    """A training step that does not fit into a device; the message says what to change."""


def schema_of(config: ConfigDict, dataset: ShardDataset | None) -> tuple[Schema, int]:
    """Return the schema and number of images to plan with.

    Args:
        config: names the train split and the method.
        dataset: the train split; None to plan for the size of fMoW, without metadata.
    """
    if dataset is not None:
        return build_method(config).planning_schema(dataset.schema), len(dataset)
    fields = StatsAccumulator().finish()
    classes = tuple(f"class {number}" for number in range(62))
    mean, std = (0.42, 0.42, 0.4), (0.29, 0.28, 0.28)
    splits = {config.data.train_split: 363_571}
    side = config.image.size
    return Schema("missing", side, classes, mean, std, fields, splits, {}), 363_571


def abstract_batch(program: Program) -> dict[str, Any]:
    """Return the shapes, dtypes and shardings of a global batch, as the loaders yield it."""
    config, rows = program.config, program.config.optimizer.batch_size
    sharding = batch_sharding(program.mesh)
    side = program.schema.image_size
    metadata = dict(example_batch(config, program.schema)[1])
    if config.metadata.encoder != "text":
        del metadata["caption"]

    def sharded(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((rows, *shape), dtype, sharding=sharding)

    return {
        "image": sharded((side, side, 3), jnp.uint8),
        "label": sharded((), jnp.int32),
        "index": sharded((), jnp.int32),
        "metadata": {name: sharded(x.shape[1:], x.dtype) for name, x in metadata.items()},
    }


def compile_step(program: Program, options: Mapping[str, Any] | None = None) -> Any:
    """Compile the training step of a program, without running it.

    Args:
        program: to compile, for the devices of its mesh.
        options: XLA's options by name.
    """
    step: Any = program.step
    lowered = step.lower(program.abstract, abstract_batch(program))
    return lowered.compile(compiler_options=dict(options) if options else None)


def compiled_bytes(compiled: Any) -> int | None:
    """Return the bytes that a compiled program needs on one device.

    Arguments, results and temporary arrays; donated arguments count once. None if the compiler
    does not report it.
    """
    stats = compiled.memory_analysis()
    if stats is None:
        return None
    needed = stats.argument_size_in_bytes + stats.output_size_in_bytes
    return needed + stats.temp_size_in_bytes - stats.alias_size_in_bytes


def device_limit() -> int:
    """Return the memory of one device in bytes; for a CPU device, its share of the host's."""
    stats = jax.local_devices()[0].memory_stats() or {}
    if limit := stats.get("bytes_limit"):
        return limit
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // jax.local_device_count()


def fit(
    config: ConfigDict, schema: Schema, examples: int, limit: int
) -> tuple[ConfigDict, int | None]:
    """Choose `parallel.exchange` and `parallel.micro_batch` so that a step fits into a device.

    Neither changes what is learned. The exchange becomes `ring` if the scores of `gather` take more
    than a tenth of the memory. Micro-batches are halved until the compiled step fits.

    Args:
        config: of the run, which stays as it is.
        schema: of the data.
        examples: images in the train split.
        limit: memory of one device, bytes.

    Returns:
        The config that fits, and the bytes that its compiled step needs on one device, None if the
        compiler does not report them.

    Raises:
        DeviceMemoryError: the step does not fit with micro-batches that cannot be halved further.
    """
    config = config.copy_and_resolve_references()
    schema = build_method(config).planning_schema(schema)
    mesh = make_mesh(fsdp=config.parallel.fsdp)
    local = config.optimizer.batch_size // mesh.size
    program = build_program(config, schema, examples, mesh)
    if 10 * score_bytes(program) > limit:
        config.parallel.exchange = "ring"
    while True:
        needed = compiled_bytes(compile_step(build_program(config, schema, examples, mesh)))
        if needed is None or needed <= HEADROOM * limit:
            return config, needed
        micro = config.parallel.micro_batch or local
        if micro % 2:
            raise DeviceMemoryError(
                f"a batch of {config.optimizer.batch_size:,} images needs {needed / 2**30:.1f} GiB "
                f"of a device in micro-batches of {micro}, and a device has {limit / 2**30:.1f} "
                "GiB: use more devices, config.parallel.fsdp or config.image.remat=True"
            )
        # halve once, and again while the estimate is far too large: each try is a compilation
        config.parallel.micro_batch = micro // 2
        while config.parallel.micro_batch % 2 == 0 and (
            needed * config.parallel.micro_batch > 4 * HEADROOM * limit * micro
        ):
            config.parallel.micro_batch //= 2


def score_bytes(program: Program) -> int:
    """Return an upper estimate of the bytes of scores that the losses hold at once on one device.

    Three float32 arrays: the scores, their exponentials and their gradient, some of which a
    compiler may fuse. With the exchange `gather` they hold this device's rows of the score matrix,
    for each direction; with `ring`, one tile of it.
    """
    batch, devices = program.config.optimizer.batch_size, program.mesh.size
    total = 0
    for scores in program.method.scores(batch).values():
        local = scores.rows // devices
        if program.config.parallel.exchange == "ring":
            total += 3 * 4 * min(TILE, local) ** 2
        else:
            total += 3 * 4 * scores.directions * local * scores.columns
    return total
