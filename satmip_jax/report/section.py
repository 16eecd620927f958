"""Structure of a page for the templates: sections made of parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Part:
    """A part of a section, under a heading.

    Attributes:
        title: heading, also in the table of contents.
        kind: name of the macro in `templates/parts.html` that draws the part.
        content: argument of the macro.
    """

    title: str
    kind: str
    content: Any


@dataclass(frozen=True)
class Section:
    """A run, a study, or the comparison of runs.

    Attributes:
        title: heading of the section.
        lead: paragraph under the heading.
        facts: (name, value) pairs under the heading.
        parts: the parts, in order.
        notes: what is missing from the page, and why.
    """

    title: str
    lead: str = ""
    facts: Sequence[tuple[str, str]] = ()
    parts: Sequence[Part] = ()
    notes: Sequence[str] = ()
