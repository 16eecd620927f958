"""A source of a few generated images, and the files of its preparation."""

import io
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from satmip_jax.metadata.record import Metadata, Problems
from satmip_jax.prepare.run import prepare
from satmip_jax.sources.base import Example, Ref, Source


def jpeg(seed: int, width: int = 24, height: int = 24) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


class FakeSource(Source):
    """A few generated images; `changes` replaces parts of an example, or makes it fail."""

    name = "made"
    classes = ("barn", "zoo")
    license = "none"
    homepage = "https://example.org"

    def __init__(self, train: int = 10, val: int = 3, **changes: dict[int, object]) -> None:
        self.options = {"train": train}
        self.skipped = Counter({"left out": 2})
        self.counts = {"train": train, "val": val}
        self.changes = changes.get("changes", {})

    def refs(self) -> list[Ref]:
        return [
            Ref(f"{split}/{i:03d}", split, (i,))
            for split, n in self.counts.items()
            for i in range(n)
        ]

    def read(self, ref: Ref, problems: Problems) -> Example:
        (i,) = ref.location
        raw = {"gsd": 0.5 + i, "location": [10.0, 50.0], "country_code": "DEU" if i % 2 else None}
        example = {
            "image": jpeg(i, 30 + i, 40),
            "metadata": Metadata.parse(raw, problems),
            "label": "zoo" if i % 2 else "barn",
            "box": None,
        }
        change = self.changes.get(i)
        if isinstance(change, Exception):
            raise change
        return Example(ref.id, **{**example, **(change or {})})


def make(out: Path, source=None, **options):
    options = {"image_size": 16, "shard_size": 4, "workers": 0, "progress": False, **options}
    return prepare(source or FakeSource(), out, **options)


def contents(folder: Path) -> dict[str, bytes]:
    """Return the files of a prepared folder, except the report, which has a duration."""
    return {
        p.name: p.read_bytes()
        for p in sorted(folder.iterdir())
        if p.is_file() and p.name != "prepare_report.json"
    }
