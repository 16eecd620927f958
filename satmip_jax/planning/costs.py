"""Costs of the operations of a compiled program, by part of the training step."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

from satmip_jax.planning.hlo import Operation

# The first pattern in an operation's name gives its part.
_PARTS = (
    (re.compile(r"[/(]views[/)]"), "views"),
    (re.compile(r"encode_image"), "image encoder"),
    (re.compile(r"encode_metadata"), "metadata encoder"),
    (re.compile(r"Towers\.head\b|/heads_"), "heads"),
    (re.compile(r"[/(]optimizer[/)]"), "optimizer"),
    (re.compile(r"jvp\(|shard_map"), "losses"),
)
_PASSES = ("image encoder", "metadata encoder")


@dataclass(frozen=True)
class Cost:
    """One operation, or several alike.

    Attributes:
        name: in the program.
        op_name: where it comes from, by JAX.
        shape: of its result.
        seconds: of one run: a lower bound, or by an estimate of cycles.
        times: runs in a step.
        bytes: to and from memory in one run.
        flops: of its products in one run.
        cycles: as XLA estimates one run; 0 where it does not.
        by_products: whether products take longer than memory, so that they give `seconds`.
    """

    name: str
    op_name: str
    shape: str
    seconds: float
    times: int = 1
    bytes: int = 0
    flops: int = 0
    cycles: int = 0
    by_products: bool = False

    @property
    def part(self) -> str:
        """The part of the step that it belongs to."""
        return part_of(self.op_name)

    @property
    def total(self) -> float:
        """Seconds of all its runs."""
        return self.seconds * self.times


def part_of(op_name: str) -> str:
    """Return the part of the step that an operation of this name belongs to.

    "views", "image encoder forward" and "backward", the same of the metadata encoder, "heads",
    "losses", "optimizer" or "other".

    Example:
        >>> from satmip_jax.planning.costs import part_of
        >>> part_of("jit(step)/transpose(jvp(Towers.encode_image))/image_encoder/norm/mul")
        'image encoder backward'
    """
    for pattern, part in _PARTS:
        if pattern.search(op_name):
            if part in _PASSES:
                return f"{part} {'backward' if 'transpose(' in op_name else 'forward'}"
            return part
    return "other"


def shape_of(operation: Operation) -> str:
    """Return the first array of a result, without its layout."""
    first = operation.shapes[:1]
    return "".join(f"{shape.dtype}[{','.join(map(str, shape.dims))}]" for shape in first)


def by_part(costs: Iterable[Cost]) -> dict[str, float]:
    """Return the seconds of each part, the longest first."""
    totals: Counter[str] = Counter()
    for cost in costs:
        totals[cost.part] += cost.total  # type: ignore[assignment]  # a Counter of floats
    return dict(totals.most_common())


def merged(costs: Iterable[Cost]) -> list[Cost]:
    """Add up operations alike, such as those of all layers; the most expensive come first.

    Operations are alike if their names differ in numbers only and they have the same shape and
    bytes.
    """
    groups: dict[tuple[object, ...], Cost] = {}
    for cost in costs:
        name = re.sub(r"[.\d]+$", "", cost.name)
        op_name = re.sub(r"(blocks?)_?\d+", r"\1", cost.op_name)
        key = (op_name, name, cost.shape, cost.seconds, cost.bytes, cost.flops)
        times = cost.times + (groups[key].times if key in groups else 0)
        groups[key] = replace(cost, name=name, op_name=op_name, times=times)
    return sorted(groups.values(), key=lambda cost: -cost.total)
