"""Bytes that a compiled program sends between devices, read from its text."""

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
_ARRAY = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")
# {{0,1},{2,3}}, or [groups,size]<=[...], or mesh['a'=2,'b'=4] {'b'}
_GROUPS = re.compile(
    r"replica_groups=(?:\{\{([\d,]*)\}|\[\d+,(\d+)\]|mesh\[([^\]]*)\][^{]*\{([^}]*)\})"
)
# Asynchronous operations whose result is a tuple of the operands, the results, and more.
_WITH_OPERANDS = ("all-gather-start", "collective-permute-start")


class Collective(NamedTuple):
    """A kind of exchange.

    Attributes:
        kind: one of KINDS.
        group: number of devices that exchange with each other.
    """

    kind: str
    group: int


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
    bodies, entry = _computations(program)

    def total(name: str) -> Counter[Collective]:
        sums: Counter[Collective] = Counter()
        for line in bodies.get(name, ()):
            match = _OPERATION.match(line)
            if match is None:
                continue
            shape, operation = match.groups()
            kind = operation.removesuffix("-start")
            if kind in KINDS:
                group = _group_size(line)
                result = _result(shape) if operation in _WITH_OPERANDS else shape
                sums[Collective(kind, group)] += _sent(kind, _array_bytes(result), group)
            elif not operation.endswith(("-update", "-done")):  # counted where it started
                trips = int(known[1]) if (known := _TRIPS.search(line)) else 1
                for called in _CALLED.findall(line):
                    for key, value in total(called).items():
                        sums[key] += trips * value
        return sums

    return total(entry)


def _computations(program: str) -> tuple[dict[str, list[str]], str]:
    """Return the lines of each computation by its name, and the name of the entry."""
    bodies: dict[str, list[str]] = {}
    entry, name = "", ""
    for line in program.splitlines():
        if match := _COMPUTATION.match(line.strip()):
            name = match[1]
            bodies[name] = []
            entry = name if line.startswith("ENTRY") else entry
        elif name:
            bodies[name].append(line.strip())
    return bodies, entry


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


def _group_size(line: str) -> int:
    """Return the number of devices that exchange with each other."""
    match = _GROUPS.search(line)
    if match is None:
        return 2  # a permutation: from one device to another
    listed, size, axes, used = match.groups()
    if listed is not None:
        return len(listed.split(","))
    if size is not None:
        return int(size)
    sizes = dict(re.findall(r"'([^']*)'=(\d+)", axes))
    return math.prod(int(sizes[name]) for name in re.findall(r"'([^']*)'", used))


def _result(shape: str) -> str:
    """Return the results of a tuple (operands, results, ...); each may be a tuple itself."""
    if not shape.startswith("("):
        return shape
    parts, depth, start = [], 0, 1
    for position, character in enumerate(shape):
        depth += {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}.get(character, 0)
        if (character == "," and depth == 1) or depth == 0:
            parts.append(shape[start:position])
            start = position + 1
    return parts[1]


def _array_bytes(shape: str) -> int:
    """Return the bytes of an array such as "f32[2,3]{1,0}", or of all arrays in a tuple."""
    total = 0
    for kind, dimensions in _ARRAY.findall(shape):
        numbers = [int(n) for n in dimensions.split(",") if n]
        total += _BITS.get(kind, 32) * math.prod(numbers) // 8
    return total
