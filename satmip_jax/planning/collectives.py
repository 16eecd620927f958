"""Transfers between devices in a compiled program: bytes, dtypes, and what hides them."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from satmip_jax.planning.costs import part_of
from satmip_jax.planning.hlo import Module, Operation, parse, parts, shapes

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "collective-permute", "all-to-all")
# {{0,1},{2,3}}, or [groups,size]<=[...], or mesh['a'=2,'b'=4] {'b'}
_GROUPS = re.compile(
    r"replica_groups=(?:\{\{([\d,]*)\}|\[\d+,(\d+)\]|mesh\[([^\]]*)\][^{]*\{([^}]*)\})"
)


class Collective(NamedTuple):
    """A kind of exchange.

    Attributes:
        kind: one of KINDS.
        group: number of devices that exchange with each other.
    """

    kind: str
    group: int


@dataclass(frozen=True)
class Transfer:
    """One collective operation of a program.

    Attributes:
        collective: its kind and group.
        op_name: where it comes from, by JAX.
        dtypes: bytes that one device sends in one run, by dtype.
        times: runs in a step.
        meanwhile: seconds of compute between its start and its end in one run, a lower bound or an
            estimate; 0 if it is synchronous.
    """

    collective: Collective
    op_name: str
    dtypes: Mapping[str, int]
    times: int
    meanwhile: float

    @property
    def bytes(self) -> int:
        """Bytes that one device sends in one run."""
        return sum(self.dtypes.values())

    @property
    def part(self) -> str:
        """The part of the step that it belongs to; "gradients" if XLA merged those of several."""
        is_sum = self.collective.kind in ("all-reduce", "reduce-scatter")
        return "gradients" if is_sum and not self.op_name else part_of(self.op_name)

    def exposed(self, link: float) -> float:
        """Return the seconds of one run that no compute hides.

        Args:
            link: bytes per second that a device sends.
        """
        return max(0.0, self.bytes / link - self.meanwhile)


def sent_bytes(program: str) -> Counter[Collective]:
    """Return the bytes that one device sends in one run of a compiled program.

    A ring is assumed: a device sends (g - 1) / g of the result of an all-gather over g devices,
    all but its own share, and twice that for an all-reduce. A loop counts as often as it runs if
    the compiler knows the number, otherwise once.

    Args:
        program: text of the compiled program, `compiled.as_text()`.

    Example:
        >>> import jax
        >>> from satmip_jax.planning.collectives import sent_bytes
        >>> compiled = jax.jit(lambda x: x + 1).lower(jnp.zeros(3)).compile()
        >>> sent_bytes(compiled.as_text())
        Counter()
    """
    sums: Counter[Collective] = Counter()
    for transfer in transfers(parse(program), {}):
        sums[transfer.collective] += transfer.times * transfer.bytes
    return sums


def transfers(module: Module, seconds: Mapping[str, float]) -> list[Transfer]:
    """Return the transfers of a program in the order of its schedule.

    Args:
        module: the program of one device.
        seconds: of one run of each operation, by its name.
    """
    found = []
    for operation, times in module.executions(fused=True):
        kind = operation.kind.removesuffix("-start")
        if kind not in KINDS:
            continue  # also the "-done" of one that has been counted
        group = _group_size(operation.attributes)
        dtypes: Counter[str] = Counter()
        for shape in shapes(_result(operation)):
            dtypes[shape.dtype] += _sent(kind, shape.bytes, group)
        between = _meanwhile(module, operation, seconds)
        collective = Collective(kind, group)
        found.append(Transfer(collective, operation.op_name, dict(dtypes), times, between))
    return found


def _meanwhile(module: Module, start: Operation, seconds: Mapping[str, float]) -> float:
    """Return the seconds of the operations between a start and its done."""
    wrapped = _wrapper(module, start)
    start = wrapped or start
    if not start.kind.endswith("-start"):
        return 0.0
    schedule = list(module.operations(start.computation))
    first = schedule.index(start) + 1
    for last, operation in enumerate(schedule[first:], first):
        if operation.kind.endswith("-done") and start.name in operation.operands:
            between = module.executions(schedule[first:last])
            return sum(times * seconds.get(inner.name, 0.0) for inner, times in between)
    return 0.0


def _wrapper(module: Module, operation: Operation) -> Operation | None:
    """Return the asynchronous operation that runs the computation of a collective, if any."""
    for computation in module.computations.values():
        for caller in computation.values():
            if caller.kind == "async-start" and operation.computation in caller.called:
                return caller
    return None


def _sent(kind: str, size: int, group: int) -> int:
    """Return the bytes that one device sends, given those of the operation's result."""
    share = size * (group - 1) // max(group, 1)
    return {
        "all-gather": share,
        "all-reduce": 2 * share,
        "reduce-scatter": size * (group - 1),  # the result is one share
        "collective-permute": size,
        "all-to-all": share,
    }[kind]


def _group_size(attributes: str) -> int:
    """Return the number of devices that exchange with each other."""
    match = _GROUPS.search(attributes)
    if match is None:
        return 2  # a permutation: from one device to another
    listed, size, axes, used = match.groups()
    if listed is not None:
        return len(listed.split(","))
    if size is not None:
        return int(size)
    sizes = dict(re.findall(r"'([^']*)'=(\d+)", axes))
    return math.prod(int(sizes[name]) for name in re.findall(r"'([^']*)'", used))


def _result(operation: Operation) -> str:
    """Return the type of a collective's results.

    The start of an asynchronous one is a tuple (operands, results, ...), each a tuple itself if
    there are several; that of an all-reduce, whose operands have the types of its results, is the
    results alone.
    """
    if operation.kind.endswith("-start") and operation.kind != "all-reduce-start":
        elements = parts(operation.type)
        return elements[1] if len(elements) > 1 else operation.type
    return operation.type
