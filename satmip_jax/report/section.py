"""What a page is made of, for the template: sections of parts, each part of one kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Part:
    """A headed piece of a section.

    Attributes:
        title: its heading, also in the table of contents.
        kind: the macro of `template.html` that draws it.
        content: what that macro takes.
    """

    title: str
    kind: str
    content: Any


@dataclass(frozen=True)
class Section:
    """A run, a study or the comparison of runs.

    Attributes:
        facts: (name, value) pairs under the heading.
        notes: what is not on the page, and why.
    """

    title: str
    lead: str = ""
    facts: Sequence[tuple[str, str]] = ()
    parts: Sequence[Part] = ()
    notes: Sequence[str] = field(default=())
