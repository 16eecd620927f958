"""Tables of the reference: options of a config and metadata fields, as the code declares them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import docstring_parser
from ml_collections import ConfigDict

from satmip_jax.augmentation.config import AugmentConfig
from satmip_jax.config import defaults
from satmip_jax.config.validation import valid_values
from satmip_jax.metadata.fields import FIELDS
from satmip_jax.metadata.kinds.category import Category
from satmip_jax.metadata.kinds.numeric import Numbers
from satmip_jax.objectives import METHODS, method_options

SECTIONS = {
    "": "Run",
    "method": "Method",
    "data": "Data",
    "image": "Image encoder",
    "metadata": "Metadata and their encoder",
    "augment": "Views",
    "optimizer": "Optimizer and length",
    "parallel": "Devices and memory",
    "eval": "Scores during training",
    "checkpoint": "Checkpoints",
}


def config_options() -> str:
    """Return a table per section: option, default, valid values, meaning."""
    config, comments = defaults.default_config(), _comments()
    sections: dict[str, list[str]] = {name: [] for name in SECTIONS}
    for key, value in _leaves(config):
        section, _, name = key.rpartition(".")
        declared = method_options().get(name) if section == "method" else None
        if declared is not None:
            users = [m for m, c in METHODS.items() if name in _names(c)]
            meaning, valid = f"{declared.description} ({', '.join(users)})", declared.limits
        else:
            meaning, valid = comments.get(key, ""), valid_values(key)
        if not meaning:
            raise ValueError(f"{key} has no comment in config/defaults.py: say what it is")
        meaning = re.sub(
            r"\b((?:objectives|models|losses)\.[\w.]+|Forward\.encode)", r"`\1`", meaning
        )
        valid = valid or _type(value)
        cells = (f"`{key}`", f"`{_default(value)}`", valid, meaning)
        sections[section].append(
            "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
        )
    head = "| option | default | valid | meaning |\n|---|---|---|---|\n"
    return "\n\n".join(
        f"## {SECTIONS[name]}\n\n{head}" + "\n".join(rows) for name, rows in sections.items()
    )


def metadata_fields() -> str:
    """Return a table of the fields: group, unit, valid range, what reveals the size."""
    rows = []
    for field in FIELDS:
        kind = field.kind
        valid = ""
        if isinstance(kind, Numbers):
            low, high = kind.bounds
            valid = ", ".join(
                dict.fromkeys(
                    f"{_number(a)} to {_number(b)}" for a, b in zip(low, high, strict=True)
                )
            )
        elif isinstance(kind, Category):
            valid = "names"
        else:
            valid = f"years {kind.first_year} to {kind.last_year}"
        rows.append(
            f"| `{field.name}` | `{field.group}` | {field.unit} | {valid} | "
            f"{'yes' if field.leak else ''} |"
        )
    head = "| field | group | unit | valid | `leak` |\n|---|---|---|---|---|\n"
    return head + "\n".join(rows)


def _leaves(section: ConfigDict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield ("section.option", default) in the order of the code."""
    for name, value in section.items():
        if isinstance(value, ConfigDict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _names(method: Any) -> set[str]:
    return {option.name for option in method.options_class.declared()}


def _comments() -> dict[str, str]:
    """Return "section.option" -> its description: the comment behind it in `default_config`.

    Options of views are described in the docstring of `AugmentConfig`.
    """
    attributes = docstring_parser.parse(AugmentConfig.__doc__ or "").params
    comments = {f"augment.{one.arg_name}": one.description or "" for one in attributes}
    path: list[str] = []
    for line in inspect.getsource(defaults.default_config).splitlines():
        if match := re.match(r' +"(\w+)": \{$', line):
            path.append(match[1])
        elif path and re.match(r" +\},?$", line):
            path.pop()
        elif match := re.match(r' +"(\w+)": .*,  # (.*)$', line):
            comments[".".join([*path, match[1]])] = match[2]
    return comments


def _type(value: Any) -> str:
    """Return what an option without a declared range takes."""
    if isinstance(value, bool):
        return "True or False"
    names = {int: "a whole number", float: "a number", str: "a text"}
    if isinstance(value, tuple):
        return f"{len(value)} numbers" if value else "steps"
    return names[type(value)]


def _default(value: Any) -> str:
    """Return a default in few digits."""
    return repr(round(value, 4) if isinstance(value, float) and value > 1 else value)


def _number(value: float) -> str:
    """Return a bound in few digits: what is next to 0 stands for "above zero"."""
    return "above 0" if 0 < value < 1e-5 else f"{value:g}"
