"""Images and tables for the tests of the source `folder`."""

import csv
import io
from pathlib import Path

from PIL import Image

from satmip_jax.metadata.record import Problems
from satmip_jax.sources.folder import Folder


def picture(value: int = 0, format: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (value % 256, 60, 90)).save(file, format)
    return file.getvalue()


def write_images(root: Path, names) -> Path:
    for i, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(i))
    return root


def write_csv(path: Path, rows: list[dict]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def read_all(source: Folder) -> tuple[dict, Problems]:
    problems = Problems()
    return {ref.id: source.read(ref, problems) for ref in source.refs()}, problems
