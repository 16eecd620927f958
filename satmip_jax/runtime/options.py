"""Options that a function or constructor declares: its arguments with a default.

Names, types, choices and defaults come from the signature, help texts from the `Args:` section of
the docstring. Sources and studies declare theirs so; they become flags of the command line.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints


@dataclass(frozen=True)
class Option:
    """One argument with a default.

    Attributes:
        name: Name of the argument, such as "split_column".
        types: Python types of its values.
        default: Value when the option is not given.
        choices: The values of a `Literal`; empty if any value of `types` is accepted.
        help: Description from the docstring, one line.
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


def options_of(declaring: Callable[..., Any]) -> dict[str, Option]:
    """Return the options of a function or class by name: all arguments with a default.

    Args:
        declaring: A function, a class, or a `functools.partial` of one.

    Example:
        >>> from satmip_jax.runtime.options import options_of
        >>> from satmip_jax.sources.fmow import FMoW
        >>> options_of(FMoW)["variant"].choices
        ('rgb', 'msrgb')
        >>> options_of(FMoW)["variant"].default
        'rgb'
    """
    target: Any = declaring.func if isinstance(declaring, partial) else declaring
    owner = _documented(target)
    hints = get_type_hints(vars(owner)["__init__"] if isinstance(owner, type) else owner)
    texts = argument_help(target)
    options = {}
    for name, parameter in inspect.signature(declaring).parameters.items():
        if parameter.default is not parameter.empty:
            kinds, choices = _types(hints.get(name, str))
            options[name] = Option(name, kinds, parameter.default, choices, texts.get(name, ""))
    return options


def argument_help(declaring: Callable[..., Any]) -> dict[str, str]:
    """Return the text of each argument in the `Args:` section of a function or class, on one line.

    For a class it is the docstring of the class in the hierarchy that defines the constructor.
    Backticks are removed.
    """
    from docstring_parser import DocstringStyle, parse

    section = parse(_documented(declaring).__doc__ or "", DocstringStyle.GOOGLE)
    return {
        argument.arg_name: " ".join((argument.description or "").replace("`", "").split())
        for argument in section.params
        if argument.args[0] == "param"  # and not an attribute
    }


def _documented(declaring: Any) -> Any:
    """Return the function, or the class in the hierarchy that defines the constructor."""
    if not isinstance(declaring, type):
        return declaring
    return next(c for c in declaring.__mro__ if "__init__" in vars(c))


def _types(hint: Any) -> tuple[tuple[type, ...], tuple[str, ...]]:
    """Runtime types and literal choices of an annotation; None, as a default, is left out."""
    if get_origin(hint) in (Union, types.UnionType):
        parts = [_types(part) for part in get_args(hint) if part is not type(None)]
        kinds = tuple(dict.fromkeys(kind for part, _ in parts for kind in part))
        return kinds, tuple(choice for _, choices in parts for choice in choices)
    if get_origin(hint) is Literal:
        return (str,), get_args(hint)
    return (get_origin(hint) or hint,), ()
