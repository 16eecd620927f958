"""Categories: texts of a vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from satmip_jax.metadata.field_stats import FieldStats
from satmip_jax.metadata.kinds.base import MAX_TEXT, BadValueError, Kind, is_empty

if TYPE_CHECKING:
    from jax import Array


@dataclass(frozen=True)
class Category(Kind[str]):
    """One of the texts that the train split holds; in arrays its position among them, sorted.

    Attributes:
        validator: text -> its canonical spelling, or None if it is unknown; applied to its own
            result it must change nothing.
        converter: What `Kind.convert` does; None if there are no other conventions.

    Example:
        >>> from satmip_jax.metadata.kinds import Category
        >>> Category({"forward": "Forward"}.get).parse(" forward ")
        'Forward'
    """

    validator: Callable[[str], str | None]
    converter: Callable[[object], tuple[object, str] | None] | None = None

    size = 0
    has_vocabulary = True
    stored_as_text = True
    is_classified = True

    def parse(self, raw: object) -> str:
        """Return the canonical spelling of a text."""
        if is_empty(raw):
            raise BadValueError("missing")
        if not isinstance(raw, str):
            raise BadValueError("wrong type")
        if len(raw) > MAX_TEXT:
            raise BadValueError("wrong length")
        category = self.validator(str(raw).strip())
        if category is None:
            raise BadValueError("unknown category")
        return category

    def convert(self, raw: object) -> tuple[object, str] | None:
        """Return what `converter` does of the value, if it is not too long."""
        if self.converter is None or (isinstance(raw, str) and len(raw) > MAX_TEXT):
            return None
        return self.converter(raw)

    def dump(self, value: str) -> str:
        """Return the text itself."""
        return value

    def n_features(self, stats: FieldStats, frequencies: int) -> int:
        """Return the size of the vocabulary."""
        return len(stats.vocabulary)

    def features(self, x: Array, present: Array, stats: FieldStats, frequencies: int) -> Array:
        """Return ids (b,) one-hot, (b, vocabulary)."""
        import jax
        import jax.numpy as jnp

        return jax.nn.one_hot(x, len(stats.vocabulary), dtype=jnp.float32)

    def n_outputs(self, stats: FieldStats, geo_centres: Sequence[Sequence[float]]) -> int:
        """Return the size of the vocabulary, or 0 if there is no choice within it."""
        return len(stats.vocabulary) if len(stats.vocabulary) > 1 else 0
