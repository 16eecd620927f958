"""Extension of griffe: our docstrings' "Example:" is what it knows as "Examples:"."""

from __future__ import annotations

import re
from typing import Any

import griffe


class Examples(griffe.Extension):
    """Let `>>>` lines be code, not quotations, and the "::" before a block a colon."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Adapt the docstring of an object when it is read."""
        if obj.docstring:
            text = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
            obj.docstring.value = re.sub(r"::$", ":", text, flags=re.MULTILINE)
