"""Quality, throughput and memory against the global batch, at the same number of images seen."""

from __future__ import annotations

import math

from satmip_jax.config.conversion import vary
from satmip_jax.distributed.sharding import check_batch_size, make_mesh
from satmip_jax.metadata.schema import Schema
from satmip_jax.planning import memory
from satmip_jax.studies import plot
from satmip_jax.studies.base import Axis, MethodConfigs, Plan, Study, StudyError, Variant

SMALLER, LARGER = 2, 2  # without --batch-sizes: so many times halved and doubled


def plan(
    recipes: MethodConfigs,
    schema: Schema,
    batch_sizes: str = "",
    learning_rate_rule: str = "linear",
    device_memory: float = 0.0,
) -> Plan:
    """A run for each size, with the exchange and the micro-batch that let it fit.

    Args:
        batch_sizes: numbers joined by commas; by default the config's, halved and doubled twice.
        learning_rate_rule: how the learning rate follows the batch, from the config's: "linear"
            (Goyal et al. 2017), "sqrt" (Krizhevsky 2014) or "fixed".
        device_memory: GiB of a device; 0 for what it tells.

    Raises:
        StudyError: sizes that are no numbers, or none that can be trained.
    """
    config = recipes.config
    base, examples = config.optimizer.batch_size, schema.splits[config.data.train_split]
    limit = int(device_memory * 2**30) or memory.device_limit()
    variants, skipped = [], {}
    for size in parse_sizes(batch_sizes) or default_sizes(base):
        name = f"batch-{size}"
        factor = {"linear": size / base, "sqrt": math.sqrt(size / base), "fixed": 1.0}
        learning_rate = config.optimizer.learning_rate * factor[learning_rate_rule]
        changes = {"optimizer.batch_size": size, "optimizer.learning_rate": learning_rate}
        if size > examples:
            skipped[name] = f"the train split has {examples:,} images: some would meet themselves"
            continue
        try:
            check_batch_size(size, make_mesh(fsdp=config.parallel.fsdp).size)
            fitted, needed = memory.fit(vary(config, changes), schema, examples, limit)
        except (MemoryError, ValueError) as error:
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
    """The config's batch, halved and doubled."""
    smaller = [base // 2**i for i in range(SMALLER, 0, -1) if base % 2**i == 0]
    return [*smaller, base, *(base * 2**i for i in range(1, LARGER + 1))]


def parse_sizes(text: str) -> list[int]:
    """Numbers joined by commas, sorted, each once.

    Raises:
        StudyError: something else.

    Example:
        >>> parse_sizes("512, 256")
        [256, 512]
    """
    sizes = set()
    for part in filter(None, (part.strip() for part in text.split(","))):
        if not part.isdecimal() or not 2 <= int(part) <= 2**24:
            raise StudyError(f"--batch-sizes {text!r}: {part!r} is no number of images from 2 on")
        sizes.add(int(part))
    return sorted(sizes)


STUDY = Study(
    name="batch-size",
    title="Scores and cost against the global batch",
    description=(
        "The same images seen with batches of different size, the learning rate following the "
        "batch. Negatives are those of the whole batch whatever its size: embeddings are gathered "
        "or go round a ring, images are encoded in micro-batches where a batch does not fit, which "
        "changes no gradient. Memory is what the compiled step needs of a device."
    ),
    plan=plan,
    x=(Axis("batch_size", "global batch, images", "log"),),
    draw=plot.scaling,
    columns={
        "batch_size": int,
        "learning_rate": float,
        "exchange": str,
        "micro_batch": int,
        "compiled_gib": float,
    },
    options=("batch_sizes", "learning_rate_rule", "device_memory"),
)
