"""Shades: squares of one colour each, bright or dark, with the field that the test adds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from satmip_jax.metadata.record import Metadata, Problems
from satmip_jax.sources.base import Example, Ref, Source


class Shades(Source):
    """Squares of one colour each.

    Args:
        paths: Not read.
        count: Number of images to train on; half as many validate.
    """

    name = "shades"
    classes = ("dark", "bright")
    image_size = 32
    generates = True
    class_weights: Mapping[str, Mapping[str, float]] = {"shade_f1": {"dark": 1.0, "bright": 3.0}}

    def __init__(self, paths: Sequence[Path], count: int = 16) -> None:
        super().__init__(paths)
        self.count = count

    def refs(self) -> list[Ref]:
        """List the squares."""
        splits = {"train": self.count, "val": self.count // 2}
        return [Ref(f"{s}/{i}.png", s, (i,)) for s, n in splits.items() for i in range(n)]

    def read(self, ref: Ref, problems: Problems) -> Example:
        """Draw one square; its snow cover says how bright it is."""
        number = int(str(ref.location[0]))
        bright = number % 2
        level = 60 + 120 * bright + number
        noise = np.random.default_rng(number).integers(0, 20, (32, 32, 3))
        pixels = (level + noise).clip(0, 255).astype(np.uint8)
        raw = {
            "snow_cover": None if number % 5 == 0 else 80.0 * bright + number / 10,
            "location": [number / 10, 45.0],
        }
        image = cv2.imencode(".png", pixels)[1].tobytes()
        label = self.classes[bright]
        return Example(ref.id, image, Metadata.parse(raw, problems), label)
