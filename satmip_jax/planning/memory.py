"""Device memory of a training step: as compiled, and how to make a step fit."""

from __future__ import annotations

import os
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from satmip_jax.data.shard_dataset import ShardDataset
from satmip_jax.distributed.sharding import batch_sharding, make_mesh
from satmip_jax.losses.ring import TILE
from satmip_jax.metadata.schema import Schema
from satmip_jax.metadata.statistics import StatsAccumulator
from satmip_jax.models import example_batch
from satmip_jax.training.step import Program, build_program

HEADROOM = 0.9  # of a device's memory; the rest is for what is not in the compiled step


def schema_of(config: ConfigDict, dataset: ShardDataset | None) -> tuple[Schema, int]:
    """The schema and number of images to plan with: the data's, or as fMoW's without metadata."""
    if dataset is not None:
        return dataset.schema, len(dataset)
    fields = StatsAccumulator().finish()
    classes = tuple(f"class {number}" for number in range(62))
    mean, std = (0.42, 0.42, 0.4), (0.29, 0.28, 0.28)
    splits = {config.data.train_split: 363_571}
    side = config.image.size
    return Schema("missing", side, classes, mean, std, fields, splits, {}), 363_571


def abstract_batch(program: Program) -> dict[str, Any]:
    """Shapes and shardings of a global batch on the devices, as the pipeline gives it."""
    config, rows = program.config, program.config.optimizer.batch_size
    sharding = batch_sharding(program.mesh)
    side = program.schema.image_size
    metadata = dict(example_batch(config, program.schema)[1])
    if config.metadata.encoder != "text":
        del metadata["caption"]

    def spread(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((rows, *shape), dtype, sharding=sharding)

    return {
        "image": spread((side, side, 3), jnp.uint8),
        "label": spread((), jnp.int32),
        "index": spread((), jnp.int32),
        "metadata": {name: spread(x.shape[1:], x.dtype) for name, x in metadata.items()},
    }


def compile_step(program: Program) -> Any:
    """The training step, compiled but not run."""
    step: Any = program.step
    return step.lower(program.abstract, abstract_batch(program)).compile()


def compiled_bytes(compiled: Any) -> int | None:
    """Bytes of one device that a compiled program needs; None where the compiler does not tell.

    Arguments, results and what lies between; what is donated counts once.
    """
    stats = compiled.memory_analysis()
    if stats is None:
        return None
    needed = stats.argument_size_in_bytes + stats.output_size_in_bytes
    return needed + stats.temp_size_in_bytes - stats.alias_size_in_bytes


def device_limit() -> int:
    """Bytes that a device of this process has; of a CPU, its part of the host's memory."""
    stats = jax.local_devices()[0].memory_stats() or {}
    if limit := stats.get("bytes_limit"):
        return limit
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // jax.local_device_count()


def fit(
    config: ConfigDict, schema: Schema, examples: int, limit: int
) -> tuple[ConfigDict, int | None]:
    """Choose `parallel.exchange` and `parallel.micro_batch` so that a step fits into `limit` bytes.

    Neither changes what is learned. `gather` stays while its scores take a tenth of the memory;
    micro-batches are halved until the compiled step fits.

    Returns:
        The config that fits, and the bytes of a device that it needs as compiled.

    Raises:
        MemoryError: nothing does.
    """
    config = config.copy_and_resolve_references()
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
            raise MemoryError(
                f"a batch of {config.optimizer.batch_size:,} takes {needed / 2**30:.1f} GiB of a "
                f"device in micro-batches of {micro}, and it has {limit / 2**30:.1f}: use more "
                "devices, config.parallel.fsdp or config.image.remat=True"
            )
        # at least half of it goes; a much too large step is halved several times at once
        config.parallel.micro_batch = micro // 2
        while config.parallel.micro_batch % 2 == 0 and (
            needed * config.parallel.micro_batch > 4 * HEADROOM * limit * micro
        ):
            config.parallel.micro_batch //= 2


def score_bytes(program: Program) -> int:
    """Return about how many bytes of scores the losses hold at once on one device.

    In float32, three arrays of each: the scores, their exponentials, and their gradient. With the
    exchange `gather` they are this device's rows of the matrix, in each direction; with `ring`, a
    tile of it.
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
