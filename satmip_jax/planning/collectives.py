"""What a compiled program sends between devices, read off its text."""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import NamedTuple

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "collective-permute", "all-to-all")
_BITS = {"pred": 8, "bf16": 16} | {
    f"{kind}{bits}": bits for kind in "usf" for bits in (4, 8, 16, 32, 64)
}
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\{$")
_OPERATION = re.compile(r"^(?:ROOT )?%?[\w.\-]+ = (.+?) ([a-z][\w\-]*)\(")
_CALLED = re.compile(r"(?:to_apply|calls|body|condition)=%?([\w.\-]+)")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
# {{0,1},{2,3}}, or [groups,size]<=[...], or mesh['a'=2,'b'=4] {'b'}
_GROUPS = re.compile(
    r"replica_groups=(?:\{\{([\d,]*)\}|\[\d+,(\d+)\]|mesh\[([^\]]*)\][^{]*\{([^}]*)\})"
)


class Collective(NamedTuple):
    """A kind of exchange among groups of so many devices."""

    kind: str
    group: int


def sent_bytes(program: str) -> Counter[Collective]:
    """Bytes that one device sends in one run of a compiled program, by kind and size of group.

    Args:
        program: `compiled.as_text()`.

    A ring is assumed: of an all-gather or reduce-scatter a device sends all but its own share of
    the whole, (g - 1) / g of it; of an all-reduce twice that. Loops count as often as they run
    where the compiler knows it, else once.

    Example:
        >>> sent_bytes(jax.jit(step).lower(state, batch).compile().as_text())
    """
    bodies: dict[str, list[str]] = {}
    entry, name = "", ""
    for line in program.splitlines():
        if found := _COMPUTATION.match(line.strip()):
            name = found[1]
            bodies[name] = []
            entry = name if line.startswith("ENTRY") else entry
        elif name:
            bodies[name].append(line.strip())

    def total(name: str) -> Counter[Collective]:
        sums: Counter[Collective] = Counter()
        for line in bodies.get(name, ()):
            found = _OPERATION.match(line)
            if found is None:
                continue
            shape, operation = found.groups()
            kind = operation.removesuffix("-start")
            if kind in KINDS:
                group = _group(line)
                sums[Collective(kind, group)] += _sent(kind, _size(shape), group)
                continue
            trips = int(t[1]) if (t := _TRIPS.search(line)) else 1
            for called in _CALLED.findall(line):
                for key, value in total(called).items():
                    sums[key] += trips * value
        return sums

    return total(entry)


def _sent(kind: str, size: int, group: int) -> int:
    """Bytes sent by one device, given the bytes of the operation's result."""
    share = size * (group - 1) // max(group, 1)
    return {
        "all-gather": share,
        "all-reduce": 2 * share,
        "reduce-scatter": size * (group - 1),  # the result is one share
        "collective-permute": size,
        "all-to-all": share,
    }[kind]


def _group(line: str) -> int:
    """How many devices exchange with each other."""
    found = _GROUPS.search(line)
    if found is None:
        return 2  # a permutation: from one to another
    listed, size, axes, used = found.groups()
    if listed is not None:
        return len(listed.split(","))
    if size is not None:
        return int(size)
    sizes = dict(re.findall(r"'([^']*)'=(\d+)", axes))
    return math.prod(int(sizes[name]) for name in re.findall(r"'([^']*)'", used))


def _size(shape: str) -> int:
    """Bytes of "f32[2,3]{1,0}" or of a tuple of such."""
    total = 0
    for kind, dimensions in re.findall(r"\b([a-z]+\d*)\[([\d,]*)\]", shape):
        numbers = [int(n) for n in dimensions.split(",") if n]
        total += _BITS.get(kind, 32) * math.prod(numbers) // 8
    return total
