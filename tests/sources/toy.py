"""A toy source, as a newcomer would write it: one file and one line in `SOURCES`."""

from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from satmip_jax.metadata.record import Metadata
from satmip_jax.sources.base import Example, Ref, Source
from satmip_jax.sources.registry import Entry

ENTRY = Entry("tests.sources.toy:Toy", "Toy: images of one shade")


class Toy(Source):
    """Images of one shade.

    Args:
        paths: A folder; its files are not read.
        count: Number of images.
        shade: How bright the images are.
        factor: Factor of the
            ground sampling distance.
        marked: Whether to draw a white corner.
        notes: File whose path is kept with the data.
    """

    name, classes, image_size = "toy", ("even", "odd"), 8
    class_weights = {"parity_f1": {"odd": 2.0, "even": 0.5, "neither": 9.0}}  # noqa: RUF012

    def __init__(
        self,
        paths,
        count: int = 6,
        shade: Literal["dark", "light"] = "dark",
        factor: float = 1.0,
        marked: bool = False,
        notes: str | Path | None = None,
    ):
        super().__init__(paths)
        self.count, self.shade, self.factor = count, shade, factor
        self.marked, self.notes = marked, notes

    def refs(self):
        return [Ref(f"{i}.png", "val" if i % 3 == 2 else "train", (i,)) for i in range(self.count)]

    def read(self, ref, problems):
        (i,) = ref.location
        pixels = np.full((8, 8, 3), 40 if self.shade == "dark" else 220, np.uint8)
        pixels[:2, :2] = 255 if self.marked else pixels[:2, :2]
        image = cv2.imencode(".png", pixels)[1].tobytes()
        metadata = Metadata.parse({"gsd": self.factor * (i + 1)}, problems)
        return Example(ref.id, image, metadata, self.classes[i % 2])
