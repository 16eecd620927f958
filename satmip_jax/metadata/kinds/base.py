"""The interface of a kind of metadata value."""

from __future__ import annotations

import abc
import math
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

from satmip_jax.metadata.field_stats import FieldStats

if TYPE_CHECKING:  # importing jax takes seconds, and the workers of a preparation do not need it
    from jax import Array

Value = tuple[float, ...] | str | datetime  # numbers; text; a time (aware, UTC)
V = TypeVar("V")

MAX_TEXT = 64  # characters of a raw text; a longer one is not a value but an accident


class BadValueError(Exception):
    """A raw value that cannot be used.

    Attributes:
        reason: "missing", "wrong type", "wrong length", "not finite", "out of range",
            "unknown category" or "ambiguous date"; `Problems` counts it.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Kind(abc.ABC, Generic[V]):
    """A kind of metadata value: all that distinguishes, say, an angle from a category.

    A kind is one of two forms. A value is either a few numbers, which are columns of the float32
    array "values"; or, with `has_vocabulary`, one of a vocabulary learned from the train split,
    whose position is a column of the int32 array "categories" (see `tabular.encode`).

    Subclasses are frozen dataclasses: two kinds with the same options are equal. The methods on
    values run on the host without jax; `features` and `target` run on the device and import
    `jax.numpy` when they are called.

    Attributes:
        size: Number of columns in "values"; 0 with `has_vocabulary`.
        has_vocabulary: Whether a value is one of a vocabulary. Its values are texts.
        stored_as_text: Whether shards store it as text; otherwise as `components` float32 numbers.
        is_classified: Whether direct prediction classifies it; otherwise it is regressed.
        needs_geo_centres: Whether direct prediction needs `Schema.geo_centres`.
        scales_with: How it changes when the image is resized: "axes" for a component per axis, x
            then y; "mean" for one scale; None for not at all.
    """

    size: int = 1
    has_vocabulary: ClassVar[bool] = False
    stored_as_text: ClassVar[bool] = False
    is_classified: ClassVar[bool] = False
    needs_geo_centres: ClassVar[bool] = False
    scales_with: Literal["axes", "mean"] | None = None

    @property
    def components(self) -> int:
        """Number of raw numbers or texts that make a value, in a table or in a shard."""
        return 1

    @property
    def n_standardized(self) -> int:
        """Number of means and standard deviations in the statistics."""
        return 0

    # --- values (host) ---

    @abc.abstractmethod
    def parse(self, raw: object) -> V:
        """Return the value of a raw one, as from JSON or a table.

        Raises:
            BadValueError: It cannot be used, for a reason that is counted.
        """

    def convert(self, raw: object) -> tuple[object, str] | None:
        """Return a value that `parse` refuses in the form that it reads, and a note.

        It serves values of other unambiguous conventions, such as azimuths of -180 to 180 degrees.
        `Metadata.parse` calls it after `parse` failed, and `Problems` counts the note. Shards are
        read by `parse` alone.

        Returns:
            The value for `parse`, and words for what was done, or "" if only the spelling changed;
            None if no other convention fits.

        Raises:
            BadValueError: For a better reason than that of `parse`.
        """
        del raw
        return None

    @abc.abstractmethod
    def dump(self, value: V) -> str | tuple[float, ...]:
        """Return what a shard stores; `parse` inverts it."""

    def recognize(self, stored: Any) -> V | None:
        """Return the value of what `dump` returned, if it is plainly valid.

        A shortcut past `parse` for reading shards: it must return what `parse` would, or None to
        leave the decision to `parse`.

        Args:
            stored: A non-empty text, or a tuple of `components` floats.
        """
        del stored
        return None

    def to_json(self, value: V) -> object:
        """Return a value as a plain number, list or string; `parse` inverts it."""
        stored = self.dump(value)
        if isinstance(stored, str):
            return stored
        return stored[0] if len(stored) == 1 else list(stored)

    def format(self, template: str, value: V) -> str:
        """Return the phrase of a caption, from a format string over the components."""
        return template.format(*value) if isinstance(value, tuple) else template.format(value)

    def standardized(self, value: V) -> tuple[float, ...]:
        """Return the `n_standardized` numbers whose mean and deviation the statistics hold."""
        del value
        return ()

    def to_numbers(self, values: Sequence[V]) -> Sequence[Any]:
        """Return `size` numbers for each value, as "values" holds them.

        It takes many values at once, because a call for each would cost more than the rest of
        `tabular.encode`. Not used with `has_vocabulary`.
        """
        return values

    # --- network inputs and targets (device) ---

    @abc.abstractmethod
    def n_features(self, stats: FieldStats, frequencies: int) -> int:
        """Return the number of features, see `features`."""

    @abc.abstractmethod
    def features(self, x: Array, present: Array, stats: FieldStats, frequencies: int) -> Array:
        """Return the network's features of a batch.

        Args:
            x: float32 (b, size), the columns of "values"; with `has_vocabulary`, int32 (b,) ids.
            present: bool (b, 1). Where it is False `x` is 0 and the features are discarded, but
                must be finite.
            stats: Statistics of the field in the train split.
            frequencies: Number of octaves of sines and cosines that describe a position.

        Returns:
            float32 (b, n_features).
        """

    # --- direct prediction ---

    def n_outputs(self, stats: FieldStats, geo_centres: Sequence[Sequence[float]]) -> int:
        """Return the number of outputs of a prediction head; 0 if there is nothing to predict.

        Args:
            stats: Statistics of the field in the train split.
            geo_centres: Unit vectors, see `Schema.geo_centres`.
        """
        del geo_centres
        return self.n_features(stats, 0) if stats.count else 0

    def target(self, x: Array, geo_centres: Sequence[Sequence[float]]) -> Array:
        """Return what a head must predict for a batch.

        Args:
            x: float32 (b, n), the `features` without frequencies; with `has_vocabulary`, int32
                (b,) ids.
            geo_centres: Unit vectors, see `Schema.geo_centres`.

        Returns:
            With `is_classified` int32 (b,) classes, otherwise float32 (b, n_outputs).
        """
        del geo_centres
        return x

    def head_name(self, field: str) -> str:
        """Return the name of the prediction head of a field, and of its metrics."""
        return field


def is_empty(raw: object) -> bool:
    """Return whether a raw value is None or blank."""
    return raw is None or (isinstance(raw, str) and not raw.strip())


# --- features of numbers (device) -----------------------------------------------------------------


def standardize(x: Array, stats: FieldStats) -> Array:
    """Return (b, n) numbers minus their means, over their standard deviations."""
    import jax.numpy as jnp

    mean, std = (jnp.asarray(s, jnp.float32)[None, :] for s in (stats.mean, stats.std))
    return (x - mean) / std


def sine_cosine(turns: Array) -> Array:
    """Return the sines, then the cosines, of turns: (b, n) -> (b, 2 n)."""
    import jax.numpy as jnp

    angle = turns * (2 * math.pi)
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], 1)
