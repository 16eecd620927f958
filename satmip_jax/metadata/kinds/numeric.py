"""Numbers: quantities that are standardized, and angles."""

from __future__ import annotations

import abc
import functools
import math
import numbers
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from satmip_jax.metadata.field_stats import FieldStats
from satmip_jax.metadata.kinds.base import (
    MAX_TEXT,
    BadValueError,
    Kind,
    is_empty,
    sine_cosine,
    standardize,
)

if TYPE_CHECKING:
    from jax import Array


ROUNDING = 0.01  # degrees by which an angle or a longitude may exceed its turn


class Numbers(Kind[tuple[float, ...]], abc.ABC):
    """Values that are tuples of `size` numbers within bounds, stored as float32.

    Attributes:
        low: Lower end of the valid range, included: one number for all components, or a tuple.
            A value outside the range counts as missing.
        high: Upper end, included.
    """

    low: float | tuple[float, ...] | None = None
    high: float | tuple[float, ...] | None = None

    @property
    def components(self) -> int:
        """Number of raw numbers that make a value."""
        return self.size

    @functools.cached_property
    def bounds(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """The valid range per component: ((low, ...), (high, ...)), `size` numbers each."""

        def per_component(
            bound: float | tuple[float, ...] | None, default: float
        ) -> tuple[float, ...]:
            if isinstance(bound, tuple):
                return bound
            return (default if bound is None else float(bound),) * self.size

        return per_component(self.low, float("-inf")), per_component(self.high, float("inf"))

    def in_range(self, values: Sequence[float]) -> bool:
        """Return whether every component lies within its bounds."""
        low, high = self.bounds
        return all(map(operator.le, low, values)) and all(map(operator.le, values, high))

    def parse(self, raw: object) -> tuple[float, ...]:
        """Return the numbers of a number, a numeric string, or a sequence of these."""
        values = self._numbers(raw)
        if not self.in_range(values):
            raise BadValueError("out of range")
        return self.canonical(values)

    def _numbers(self, raw: object) -> tuple[float, ...]:
        """Return `size` finite numbers, in or out of range."""
        if isinstance(raw, list | tuple | np.ndarray):
            if len(raw) != self.size:
                raise BadValueError("wrong length")
            values = tuple(map(_number, raw))
        else:
            values = (_number(raw),)
            if self.scales_with == "axes":
                values *= self.size  # one scale for both axes
            if len(values) != self.size:
                raise BadValueError("wrong length")
        return values

    def canonical(self, values: tuple[float, ...]) -> tuple[float, ...]:
        """Return the one spelling of valid values; those strictly within the bounds are it."""
        return values

    def dump(self, value: tuple[float, ...]) -> tuple[float, ...]:
        """Return the numbers themselves."""
        return value

    def recognize(self, stored: tuple[float, ...]) -> tuple[float, ...] | None:
        """Return numbers strictly within the bounds, so that the parser would not change them."""
        low, high = self.bounds
        if all(map(operator.lt, low, stored)) and all(map(operator.lt, stored, high)):
            return stored
        return None


@dataclass(frozen=True)
class Numeric(Numbers):
    """Quantities, given to networks standardized.

    Attributes:
        size: Number of components.
        low: Lower end of the valid range, included; a tuple where components differ.
        high: Upper end, included.
        log: Whether to standardize the logarithm, as for scales; `low` must be above 0.
        scales_with: How it changes when the image is resized, see `Kind`.

    Example:
        >>> from satmip_jax.metadata.kinds import Numeric
        >>> Numeric(size=2, low=0.0, scales_with="axes").parse("0.5")
        (0.5, 0.5)
    """

    size: int = 1
    low: float | tuple[float, ...] | None = None
    high: float | tuple[float, ...] | None = None
    log: bool = False
    scales_with: Literal["axes", "mean"] | None = None

    @property
    def n_standardized(self) -> int:
        """Number of means and standard deviations: one per component."""
        return self.size

    def standardized(self, value: tuple[float, ...]) -> tuple[float, ...]:
        """Return the components, or their logarithms."""
        return tuple(map(math.log, value)) if self.log else value

    def n_features(self, stats: FieldStats, frequencies: int) -> int:
        """Return the number of components."""
        return self.size

    def features(self, x: Array, present: Array, stats: FieldStats, frequencies: int) -> Array:
        """Return the components standardized, after the logarithm if `log`."""
        import jax.numpy as jnp

        if self.log:
            x = jnp.log(jnp.where(present, x, jnp.ones_like(x)))  # log 0 = -inf, even unused
        return standardize(x, stats)


@dataclass(frozen=True)
class Angle(Numbers):
    """An angle, given to networks as the sine and cosine of 2 pi x / period.

    Attributes:
        low: Lower end of the valid range, included.
        high: Upper end, included. If the range is one whole turn, this end is read as `low`.
        period: A whole turn, in the unit of the field.
        unsigned: Whether a sign only tells the side, as of off-nadir angles; it is dropped.

    Example:
        >>> from satmip_jax.metadata.kinds import Angle
        >>> Angle(low=0.0, high=360.0).parse(360)
        (0.0,)
    """

    low: float | None = None
    high: float | None = None
    period: float = 360.0
    unsigned: bool = False

    @functools.cached_property
    def is_cyclic(self) -> bool:
        """Whether the valid range is one whole turn, so that its end is its beginning."""
        low, high = self.low, self.high
        return low is not None and high is not None and high - low == self.period

    def canonical(self, values: tuple[float, ...]) -> tuple[float, ...]:
        """Return the angle within [low, high) if the range is one whole turn."""
        return tuple(v % self.period for v in values) if self.is_cyclic else values

    def convert(self, raw: object) -> tuple[object, str] | None:
        """Wrap angles up to half a turn below and slightly above one turn; drop the sign."""
        try:
            (value,) = self._numbers(raw)
        except BadValueError:
            return None
        if self.is_cyclic and self.low is not None and self.high is not None:
            half = self.period / 2
            if self.low - half <= value < self.low:
                note = f"in {self.low - half:g}..{self.low + half:g}: wrapped"
                # a tiny negative angle wraps to the end of the range, which `parse` wraps again
                return value % self.period, f"{note} to {self.low:g}..{self.high:g}"
            if self.high < value <= self.high + ROUNDING:
                return value - self.period, f"slightly above {self.high:g}: wrapped"
        if self.unsigned and self.high is not None and -self.high <= value < 0:
            return -value, "negative: only the size was kept"
        return None

    def n_features(self, stats: FieldStats, frequencies: int) -> int:
        """Return 2: sine and cosine."""
        return 2

    def features(self, x: Array, present: Array, stats: FieldStats, frequencies: int) -> Array:
        """Return the sine and the cosine."""
        return sine_cosine(x / self.period)


def _number(raw: object) -> float:
    """Return a finite float of a number or a numeric string."""
    if type(raw) is float and math.isfinite(raw):  # nearly all of them
        return raw
    if is_empty(raw):
        raise BadValueError("missing")
    if isinstance(raw, str):
        # float() also takes "1_0"; the bound keeps a megabyte of digits from being read
        if len(raw) > MAX_TEXT or "_" in raw:
            raise BadValueError("wrong type")
    elif isinstance(raw, bool) or not isinstance(raw, numbers.Real):
        raise BadValueError("wrong type")
    try:
        value = float(raw)
    except OverflowError:  # an int above 1e308
        raise BadValueError("out of range") from None
    except ValueError:
        raise BadValueError("wrong type") from None
    if not math.isfinite(value):
        raise BadValueError("not finite")
    return value
