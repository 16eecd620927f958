"""GeoTIFFs for tests, written by rasterio."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.errors
import rasterio.io

AFFINE = rasterio.Affine


def picture(width: int, height: int, bands: int = 3, dtype: str = "uint8") -> np.ndarray:
    """Values that differ from pixel to pixel: (bands, height, width), none of them 0."""
    high = 255 if dtype == "uint8" else 3000
    y, x = np.mgrid[:height, :width]
    return np.stack([1 + (7 * x + 13 * y + 29 * b) % high for b in range(bands)]).astype(dtype)


def geotiff(
    values: np.ndarray,
    tags: dict[str | None, dict[str, str]] | None = None,
    path: Path | None = None,
    mask: np.ndarray | None = None,
    **changed: Any,
) -> bytes:
    """A GeoTIFF in UTM zone 33 N, 10 m per pixel; `tags` by domain."""
    bands, height, width = values.shape
    profile = {
        "count": bands,
        "height": height,
        "width": width,
        "dtype": values.dtype,
        "crs": "EPSG:32633",
        "transform": AFFINE(10, 0, 500_000, 0, -10, 5_000_000),
    } | changed
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.io.MemoryFile() as file:
            with file.open(
                driver="GTiff", **{k: v for k, v in profile.items() if v is not None}
            ) as image:
                image.write(values)
                if mask is not None:
                    image.write_mask(mask)
                for domain, texts in (tags or {}).items():
                    image.update_tags(ns=domain, **texts)
            data = bytes(file.getbuffer())
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return data
