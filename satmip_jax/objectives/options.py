"""Declared options of pretraining methods: type, default, description and valid values.

A method declares its options as a frozen dataclass:

    @dataclass(frozen=True)
    class SimCLROptions(MethodOptions):
        temperature: float = option(0.1, "temperature of the loss", above=0)

The options of all methods together are the section `method` of a config.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from satmip_jax.errors import ConfigError

Value = bool | int | float | str
Options = TypeVar("Options", bound="MethodOptions")

_DECLARED = "option"  # key of the declaration in a field's metadata


@dataclass(frozen=True)
class Option:
    """The declaration of one option.

    Attributes:
        name: its key in `config.method`.
        default: the value in `default_config()`; a config accepts values of the same type.
        description: one line.
        at_least: smallest valid value.
        above: bound that a valid value exceeds.
        at_most: largest valid value.
        choices: the valid values; empty if a range is declared, or any value is valid.
    """

    name: str
    default: Value
    description: str
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    choices: tuple[str, ...] = ()

    @property
    def limits(self) -> str:
        """The valid values in words, such as "at least 0"; "" if every value is valid.

        Example:
            >>> from satmip_jax.objectives.options import Option
            >>> Option("geo_clusters", 100, "", at_least=2, at_most=4096).limits
            'from 2 to 4096'
        """
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        if self.at_least is not None and self.at_most is not None:
            return f"from {self.at_least} to {self.at_most}"
        bounds = {"at least": self.at_least, "above": self.above, "at most": self.at_most}
        return " and ".join(f"{words} {x}" for words, x in bounds.items() if x is not None)

    def check(self, value: Value) -> None:
        """Raise ConfigError if a value is not valid; the message names the option and the value."""
        if self.choices:
            if value not in self.choices:
                raise ConfigError(f"config.method.{self.name} is {value!r}; choose {self.limits}")
        elif not isinstance(value, str) and not self._in_range(value):
            raise ConfigError(f"config.method.{self.name} is {value}; it must be {self.limits}")

    def _in_range(self, value: float) -> bool:
        """Whether all bounds hold; none holds for NaN."""
        return (
            (self.at_least is None or value >= self.at_least)
            and (self.above is None or value > self.above)
            and (self.at_most is None or value <= self.at_most)
        )


def option(
    default: Value,
    description: str,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    choices: Iterable[str] = (),
) -> Any:
    """Declare an option: a dataclass field whose metadata `MethodOptions.declared` reads.

    Args:
        default: the default, which also fixes the type.
        description: one line for the reference.
        at_least: smallest valid value.
        above: bound that a valid value exceeds.
        at_most: largest valid value.
        choices: the valid values of a string.
    """
    declared = Option("", default, description, at_least, above, at_most, tuple(choices))
    return dataclasses.field(default=default, metadata={_DECLARED: declared})


@dataclass(frozen=True)
class MethodOptions:
    """Base class of the options of a method: a frozen dataclass whose fields are `option(...)`.

    Raises:
        ConfigError: a value is not valid; the message names the option, the value and the limits.

    Example:
        >>> from satmip_jax.objectives.simclr import SimCLROptions
        >>> SimCLROptions(temperature=0.0)
        Traceback (most recent call last):
        ...
        satmip_jax.errors.ConfigError: config.method.temperature is 0.0; it must be above 0
    """

    def __post_init__(self) -> None:
        for declared in self.declared():
            declared.check(getattr(self, declared.name))

    @classmethod
    def declared(cls) -> tuple[Option, ...]:
        """Return the declarations of the options, in the order of a reference.

        Raises:
            TypeError: a field is not declared by `option(...)`.
        """
        options = []
        for field in dataclasses.fields(cls):
            if _DECLARED not in field.metadata:
                raise TypeError(f"declare {cls.__name__}.{field.name} by option(...)")
            options.append(dataclasses.replace(field.metadata[_DECLARED], name=field.name))
        return tuple(options)

    @classmethod
    def from_section(cls: type[Options], section: Mapping[str, Value]) -> Options:
        """Return the options in `config.method`; those it lacks have their defaults.

        Args:
            section: option -> value; what other methods declare is ignored.
        """
        names = [declared.name for declared in cls.declared() if declared.name in section]
        return cls(**{name: section[name] for name in names})


def union_of_options(declarations: Mapping[str, type[MethodOptions]]) -> dict[str, Option]:
    """Return the options of all methods, by name.

    Args:
        declarations: method -> its options.

    Raises:
        ValueError: two methods declare an option of the same name differently.
    """
    union: dict[str, Option] = {}
    declared_by: dict[str, str] = {}
    for method, options in declarations.items():
        for declared in options.declared():
            first = union.setdefault(declared.name, declared)
            declared_by.setdefault(declared.name, method)
            if first != declared or type(first.default) is not type(declared.default):  # 1 == 1.0
                raise ValueError(
                    f"methods {declared_by[declared.name]!r} and {method!r} declare the option "
                    f"{declared.name!r} differently: {first} and {declared}; rename one of them, "
                    "or let one class of options inherit from the other"
                )
    return union
