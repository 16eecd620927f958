"""Parser of compiled programs: the text of scheduled HLO, `compiled.as_text()`."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

_BITS = {"pred": 8, "bf16": 16, "c64": 64, "c128": 128} | {
    f"{kind}{bits}": bits for kind in "usf" for bits in (2, 4, 8, 16, 32, 64)
}
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_OPERATION = re.compile(r"^(ROOT )?%?([\w.\-]+) = ")
_KIND = re.compile(r" *([a-z][\w\-]*)\(")
_NAME = re.compile(r"%([\w.\-]+)")
_ARRAY = re.compile(r"\b([a-z]+\d*(?:e\d+m\d+\w*)?)\[([\d,]*)\]")
_CALLED = re.compile(r"\b(?:to_apply|calls|body|condition)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"\bbranch_computations=\{([^}]*)\}")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_COMMENT = re.compile(r"/\*.*?\*/")


class Shape(NamedTuple):
    """An array of a program.

    Attributes:
        dtype: as in HLO, such as "bf16" or "pred".
        dims: its sizes.
    """

    dtype: str
    dims: tuple[int, ...]

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.dims)

    @property
    def bytes(self) -> int:
        """Size in memory, without the padding of a tiled layout."""
        bits = 8 if self.dtype.startswith("f8") else _BITS.get(self.dtype, 0)
        return bits * self.elements // 8


def shapes(text: str) -> tuple[Shape, ...]:
    """Return the arrays of a type, those of nested tuples in order; tokens are left out.

    Example:
        >>> from satmip_jax.planning.hlo import shapes
        >>> shapes("(f32[8,16]{1,0:T(8,128)S(1)}, (bf16[4], token[]))")
        (Shape(dtype='f32', dims=(8, 16)), Shape(dtype='bf16', dims=(4,)))
    """
    return tuple(
        Shape(dtype, tuple(int(n) for n in dims.split(",") if n))
        for dtype, dims in _ARRAY.findall(text)
        if dtype in _BITS or dtype.startswith("f8")
    )


@dataclass(frozen=True)
class Operation:
    """One instruction.

    Attributes:
        computation: name of the computation that holds it.
        name: its name, unique in the program.
        kind: such as "fusion" or "all-reduce-start".
        type: text of its result's type.
        arguments: text between the parentheses.
        attributes: text after them.
        is_root: whether it is the result of its computation.
    """

    computation: str
    name: str
    kind: str
    type: str
    arguments: str
    attributes: str
    is_root: bool = False

    @cached_property
    def shapes(self) -> tuple[Shape, ...]:
        """The arrays of its result."""
        return shapes(self.type)

    @property
    def bytes(self) -> int:
        """Bytes of its result."""
        return sum(shape.bytes for shape in self.shapes)

    @cached_property
    def operands(self) -> tuple[str, ...]:
        """Names of its operands, in order."""
        return tuple(_NAME.findall(self.arguments))

    @cached_property
    def called(self) -> tuple[str, ...]:
        """Names of the computations that it calls."""
        branches = _BRANCHES.search(self.attributes)
        names = _CALLED.findall(self.attributes)
        return (*names, *(_NAME.findall(branches[1]) if branches else ()))

    @property
    def op_name(self) -> str:
        """Where it comes from, by JAX: "jit(step)/jvp(Towers.head)/..."; "" if unknown."""
        return self.attribute(r'op_name="([^"]*)"') or ""

    def attribute(self, pattern: str) -> str | None:
        """Return the first group of a pattern among the attributes, or None."""
        match = re.search(pattern, self.attributes)
        return match[1] if match else None


@dataclass(frozen=True)
class Module:
    """A compiled program.

    Attributes:
        computations: name -> operations by name, in the order of the schedule.
        entry: name of the computation that runs first.
    """

    computations: dict[str, dict[str, Operation]]
    entry: str

    def operations(self, computation: str) -> Iterable[Operation]:
        """Return the operations of a computation in the order of the schedule."""
        return self.computations.get(computation, {}).values()

    def find(self, operation: Operation, operand: str) -> Operation | None:
        """Return the operation of the same computation that yields an operand."""
        return self.computations[operation.computation].get(operand)

    def inputs(self, operation: Operation) -> list[Operation]:
        """Return the operations that yield the distinct operands of an operation."""
        found = [self.find(operation, name) for name in dict.fromkeys(operation.operands)]
        return [operand for operand in found if operand is not None]

    def executions(
        self, operations: Iterable[Operation] | None = None, *, fused: bool = False
    ) -> Iterator[tuple[Operation, int]]:
        """Yield operations with the number of their runs, those in loops and calls included.

        Loops, calls and asynchronous wrappers themselves are not yielded, and all branches of a
        conditional are. A loop runs as often as the compiler knows, otherwise once.

        Args:
            operations: to begin with; None for those of the entry.
            fused: whether to enter fusions, instead of yielding them.
        """
        for operation in self.operations(self.entry) if operations is None else operations:
            called = self._entered(operation, fused)
            if called is None:
                yield operation, 1
                continue
            times = (self.trips(operation) or 1) if operation.kind == "while" else 1
            for name in called:
                for inner, count in self.executions(self.operations(name), fused=fused):
                    yield inner, times * count

    def _entered(self, operation: Operation, fused: bool) -> tuple[str, ...] | None:
        """Return the computations that run instead of an operation; None if it runs itself."""
        kind = operation.kind
        if kind == "while":
            return tuple(filter(None, [operation.attribute(r"\bbody=%?([\w.\-]+)")]))
        if kind in ("call", "conditional", "async-start"):
            return operation.called
        if kind == "fusion":
            return operation.called if fused else None
        if kind.endswith("-start") and "calls=" in operation.attributes:
            return operation.called
        return None

    def trips(self, loop: Operation) -> int | None:
        """Return how often a loop runs; None if the program does not say it.

        XLA annotates it for GPUs and CPUs. For TPUs it is the constant that the condition compares
        a counter from 0 with.
        """
        if known := loop.attribute(_TRIPS.pattern):
            return int(known)
        condition = loop.attribute(r"\bcondition=%?([\w.\-]+)")
        limits = [
            int(operation.arguments)
            for operation in self.operations(condition or "")
            if operation.kind == "constant" and operation.type.startswith("s32[]")
        ]
        return limits[0] if len(limits) == 1 else None


def parse(text: str) -> Module:
    """Parse the text of a compiled program.

    Args:
        text: `compiled.as_text()`.

    Example:
        >>> import jax
        >>> from satmip_jax.planning.hlo import parse
        >>> module = parse(jax.jit(lambda x: x + 1).lower(jnp.zeros(3)).compile().as_text())
        >>> [operation.shapes for operation in module.operations(module.entry)][-1]
        (Shape(dtype='f32', dims=(3,)),)
    """
    computations: dict[str, dict[str, Operation]] = {}
    entry, name = "", ""
    for line in text.splitlines():
        line = line.strip()
        if header := _COMPUTATION.match(line):
            name = header[2]
            computations[name] = {}
            entry = name if header[1] else entry
        elif line.startswith("}"):
            name = ""
        elif name and (operation := _operation(name, line)):
            computations[name][operation.name] = operation
    return Module(computations, entry)


def _operation(computation: str, line: str) -> Operation | None:
    """Parse a line `[ROOT] %name = type kind(arguments), attributes`."""
    match = _OPERATION.match(line)
    if match is None:
        return None
    rest = line[match.end() :]
    cut = _closing(rest) + 1 if rest.startswith("(") else rest.find(" ")
    kind = _KIND.match(rest, cut)
    if kind is None:
        return None
    end = _closing(rest, kind.end() - 1)
    return Operation(
        computation=computation,
        name=match[2],
        kind=kind[1],
        type=_COMMENT.sub("", rest[:cut]),
        arguments=_COMMENT.sub("", rest[kind.end() : end]),
        attributes=rest[end + 1 :],
        is_root=bool(match[1]),
    )


def _closing(text: str, start: int = 0) -> int:
    """Return the position of the parenthesis that closes the one at `start`."""
    depth = 0
    for match in re.finditer(r"[()]", text[start:]):
        depth += 1 if match[0] == "(" else -1
        if depth == 0:
            return start + match.start()
    return len(text)


def parts(type_: str) -> list[str]:
    """Return the elements of a tuple's type; of another type, itself.

    Example:
        >>> from satmip_jax.planning.hlo import parts
        >>> parts("((f32[8]{0}, s32[]), bf16[8,4]{1,0})")
        ['(f32[8]{0}, s32[])', 'bf16[8,4]{1,0}']
    """
    if not type_.startswith("("):
        return [type_]
    found, depth, start = [], 0, 1
    for position, character in enumerate(type_):
        depth += {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}.get(character, 0)
        if (character == "," and depth == 1) or depth == 0:
            found.append(type_[start:position].strip())
            start = position + 1
    return found
