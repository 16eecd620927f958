"""Study: quality, throughput and memory against the global batch size, for equal images seen."""

from __future__ import annotations

import math
from typing import Literal

from satmip_jax.config.conversion import vary
from satmip_jax.distributed.sharding import check_batch_size, make_mesh
from satmip_jax.errors import SatmipError
from satmip_jax.metadata.schema import Schema
from satmip_jax.planning import memory
from satmip_jax.studies import plot
from satmip_jax.studies.base import Axis, MethodConfigs, Plan, Study, StudyError, Variant

HALVINGS, DOUBLINGS = 2, 2  # of the config's batch size, without --batch-sizes


def plan(
    configs: MethodConfigs,
    schema: Schema,
    *,
    batch_sizes: str = "",
    learning_rate_rule: Literal["linear", "sqrt", "fixed"] = "linear",
    device_memory: float = 0.0,
) -> Plan:
    """Plan a run per batch size, with the exchange and the micro-batch that make it fit.

    Args:
        configs: the config that gives the base batch size and learning rate.
        schema: schema of the training data.
        batch_sizes: Global batch sizes, such as 256,512,1024. By default the config's, halved and
            doubled twice.
        learning_rate_rule: Scaling of the config's learning rate with the batch size: linear
            (Goyal et al. 2017), sqrt (Krizhevsky 2014) or fixed.
        device_memory: Memory per device, GiB; 0 for what the device reports.

    Raises:
        StudyError: batch sizes that are not numbers, or none that can be trained.
    """
    config = configs.config
    base, examples = config.optimizer.batch_size, schema.splits[config.data.train_split]
    limit = int(device_memory * 2**30) or memory.device_limit()
    variants, skipped = [], {}
    for size in parse_sizes(batch_sizes) or default_sizes(base):
        name = f"batch-{size}"
        factors = {"linear": size / base, "sqrt": math.sqrt(size / base), "fixed": 1.0}
        learning_rate = config.optimizer.learning_rate * factors[learning_rate_rule]
        changes = {"optimizer.batch_size": size, "optimizer.learning_rate": learning_rate}
        if size > examples:
            skipped[name] = (
                f"the train split has {examples:,} images: a batch would contain duplicates"
            )
            continue
        try:
            check_batch_size(size, make_mesh(fsdp=config.parallel.fsdp).size)
            fitted, needed = memory.fit(vary(config, changes), schema, examples, limit)
        except SatmipError as error:
            skipped[name] = str(error)
            continue
        values = {
            "batch_size": size,
            "learning_rate": learning_rate,
            "exchange": fitted.parallel.exchange,
            "micro_batch": fitted.parallel.micro_batch,
            "compiled_gib": None if needed is None else needed / 2**30,
        }
        variants.append(Variant(name, fitted, values=values))
    if not variants:
        raise StudyError("no batch size can be trained:\n  " + "\n  ".join(skipped.values()))
    return Plan(variants, skipped)


def default_sizes(base: int) -> list[int]:
    """Return the config's batch size, halved and doubled.

    Example:
        >>> from satmip_jax.studies.batch_size import default_sizes
        >>> default_sizes(256)
        [64, 128, 256, 512, 1024]
    """
    smaller = [base // 2**i for i in range(HALVINGS, 0, -1) if base % 2**i == 0]
    return [*smaller, base, *(base * 2**i for i in range(1, DOUBLINGS + 1))]


def parse_sizes(text: str) -> list[int]:
    """Parse batch sizes joined by commas; return them sorted, without duplicates.

    Raises:
        StudyError: a part that is not a number of images.

    Example:
        >>> from satmip_jax.studies.batch_size import parse_sizes
        >>> parse_sizes("512, 256")
        [256, 512]
    """
    sizes = set()
    for part in filter(None, (part.strip() for part in text.split(","))):
        if not part.isdecimal() or not 2 <= int(part) <= 2**24:
            raise StudyError(
                f"--batch-sizes {text!r}: {part!r} is not a number of images (2 to {2**24:,})"
            )
        sizes.add(int(part))
    return sorted(sizes)


STUDY = Study(
    name="batch-size",
    title="Scores and cost against the global batch size",
    description=(
        "The config's method trained with several batch sizes on the same number of images, with "
        "the learning rate scaled by a rule. Every batch size contrasts with the negatives of the "
        "whole global batch: embeddings are exchanged by all-gather or ring. Where a batch does "
        "not fit, images are encoded in micro-batches, which leaves the gradient unchanged. Memory "
        "is that of the compiled step, per device."
    ),
    plan=plan,
    x=(Axis("batch_size", "global batch size, images", "log"),),
    draw=plot.scaling,
    columns={
        "batch_size": int,
        "learning_rate": float,
        "exchange": str,
        "micro_batch": int,
        "compiled_gib": float,
    },
)
