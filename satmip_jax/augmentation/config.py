"""Options of the views, as a frozen, hashable object."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from satmip_jax.errors import SatmipError


class AugmentError(SatmipError, ValueError):
    """Invalid options or images for views; the message names the value and the reason."""


@dataclass(frozen=True)
class AugmentConfig:
    """Distribution of the views of an image; hashable, so it can be a static argument of `jax.jit`.

    The defaults are SimCLR's views in SLIP's strength. Lists are converted to tuples.

    Attributes:
        size: side of the square view, pixels.
        crop_scale: smallest and largest area of the crop, as a fraction of the image's area.
        crop_ratio: smallest and largest width / height of the crop, log-uniform between them.
        hflip: mirror left-right with probability 1/2.
        vflip: mirror top-bottom with probability 1/2.
        rot90: turn by 0, 90, 180 or 270 degrees, each with probability 1/4.
        jitter: strength of brightness, contrast, saturation (factors in [max(0, 1 - s), 1 + s]) and
            hue (turns of the colour circle in [-s, s], s at most 0.5).
        jitter_p: probability of colour jitter.
        grey_p: probability of grey.
        blur_p: probability of blur.
        blur_sigma: smallest and largest standard deviation of the blur, pixels of the view.

    Raises:
        AugmentError: a value outside its range; the message names it.

    Example:
        >>> from satmip_jax.augmentation.config import AugmentConfig
        >>> overhead = AugmentConfig(size=224, vflip=True, rot90=True)  # there is no up or down
        >>> overhead.crop_scale
        (0.08, 1.0)
    """

    size: int
    crop_scale: tuple[float, float] = (0.08, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    hflip: bool = True
    vflip: bool = False
    rot90: bool = False
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.4, 0.1)
    jitter_p: float = 0.8
    grey_p: float = 0.2
    blur_p: float = 0.5
    blur_sigma: tuple[float, float] = (0.1, 2.0)

    def __post_init__(self) -> None:
        for name, length in (
            ("crop_scale", 2),
            ("crop_ratio", 2),
            ("jitter", 4),
            ("blur_sigma", 2),
        ):
            object.__setattr__(self, name, _floats(name, getattr(self, name), length))
        if isinstance(self.size, bool) or not isinstance(self.size, int) or self.size < 1:
            raise AugmentError(
                f"AugmentConfig.size is {self.size!r}: needs the side of the view in pixels"
            )
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in ("hflip", "vflip", "rot90"):
                if not isinstance(value, bool):
                    raise AugmentError(
                        f"AugmentConfig.{field.name} is {value!r}: needs True or False"
                    )
            elif field.name.endswith("_p") and not (
                isinstance(value, int | float) and 0 <= value <= 1
            ):
                raise AugmentError(
                    f"AugmentConfig.{field.name} is {value!r}: needs a probability, 0 to 1"
                )
        low, high = self.crop_scale
        if not 0 < low <= high <= 1:
            raise AugmentError(
                f"AugmentConfig.crop_scale is {self.crop_scale}: needs fractions of the image's "
                "area, 0 < smallest <= largest <= 1"
            )
        for name in ("crop_ratio", "blur_sigma"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise AugmentError(
                    f"AugmentConfig.{name} is {(low, high)}: needs 0 < smallest <= largest"
                )
        if min(self.jitter) < 0 or self.jitter[3] > 0.5:
            raise AugmentError(
                f"AugmentConfig.jitter is {self.jitter}: needs brightness, contrast and "
                "saturation >= 0 and hue between 0 and 0.5"
            )


def _floats(name: str, value: object, length: int) -> tuple[float, ...]:
    """Return `value` as a tuple of `length` finite floats, or raise an AugmentError."""
    try:
        numbers = tuple(float(v) for v in value)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        numbers = ()
    if len(numbers) != length or not all(map(math.isfinite, numbers)):
        raise AugmentError(f"AugmentConfig.{name} is {value!r}: needs {length} finite numbers")
    return numbers
