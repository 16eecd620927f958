"""Options of a source, read from its constructor.

Names, types, choices and defaults come from the signature, help texts from the `Args:` section of
the docstring. `open_source` checks values against them, and `satmip prepare` makes them flags.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints


@dataclass(frozen=True)
class Option:
    """One keyword argument of a source's constructor.

    Attributes:
        name: Name of the argument, such as "split_column".
        types: Python types of its values.
        default: Value when the option is not given.
        choices: The values of a `Literal`; empty if any value of `types` is accepted.
        help: Description from the docstring.
    """

    name: str
    types: tuple[type, ...]
    default: Any
    choices: tuple[str, ...] = ()
    help: str = ""

    @property
    def flag(self) -> str:
        """The option on the command line, such as "--split-column"."""
        return f"--{self.name.replace('_', '-')}"

    def problem(self, value: object) -> str | None:
        """Return what is wrong with a value, or None if the option accepts it."""
        if value is self.default:
            return None
        if self.choices:
            valid = value in self.choices
            expected = f"one of {', '.join(self.choices)}"
        else:
            kinds = (*self.types, int) if float in self.types else self.types
            valid = bool in self.types if isinstance(value, bool) else isinstance(value, kinds)
            expected = " or ".join(kind.__name__ for kind in self.types)
        return None if valid else f"{self.flag} {value!r}: must be {expected}"


def options_of(source: Callable[..., Any]) -> dict[str, Option]:
    """Return the options of a source by name: all arguments with a default, except `paths`.

    Args:
        source: A class, or a `functools.partial` of one.

    Example:
        >>> from satmip_jax.sources.fmow import FMoW
        >>> from satmip_jax.sources.options import options_of
        >>> options_of(FMoW)["variant"].choices
        ('rgb', 'msrgb')
        >>> options_of(FMoW)["variant"].default
        'rgb'
    """
    cls: Any = source.func if isinstance(source, partial) else source
    hints = get_type_hints(cls.__init__)
    texts = argument_help(cls)
    options = {}
    for name, parameter in inspect.signature(source).parameters.items():
        if name != "paths" and parameter.default is not parameter.empty:
            kinds, choices = _types(hints.get(name, str))
            options[name] = Option(name, kinds, parameter.default, choices, texts.get(name, ""))
    return options


def argument_help(cls: type) -> dict[str, str]:
    """Return the text of each argument in the `Args:` section of a class.

    The docstring is that of the class in the hierarchy that defines the constructor. Backticks are
    removed, and each text is one line.
    """
    owner = next(c for c in cls.__mro__ if "__init__" in vars(c))
    lines = iter(inspect.cleandoc(owner.__doc__ or "").splitlines())
    texts: dict[str, str] = {}
    name, indent = "", 0
    for line in lines:
        if line == "Args:":
            break
    for line in lines:
        text = line.strip()
        if text and not line.startswith(" "):  # the next section
            break
        depth = len(line) - len(line.lstrip())
        indent = indent or depth
        if depth == indent and ":" in text:
            name, _, text = text.partition(":")
        texts[name] = f"{texts.get(name, '')} {text.strip()}".strip().replace("`", "")
    return texts


def _types(hint: Any) -> tuple[tuple[type, ...], tuple[str, ...]]:
    """Runtime types and literal choices of an annotation; None, as a default, is left out."""
    if get_origin(hint) in (Union, types.UnionType):
        parts = [_types(part) for part in get_args(hint) if part is not type(None)]
        kinds = tuple(dict.fromkeys(kind for part, _ in parts for kind in part))
        return kinds, tuple(choice for _, choices in parts for choice in choices)
    if get_origin(hint) is Literal:
        return (str,), get_args(hint)
    return (get_origin(hint) or hint,), ()


def json_values(source: object, options: Mapping[str, Option]) -> dict[str, Any]:
    """Return the values of the options as JSON, from the source's attributes of the same names."""
    values = {name: getattr(source, name) for name in options}
    return {k: v if isinstance(v, int | float | None) else str(v) for k, v in values.items()}
