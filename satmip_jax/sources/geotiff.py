"""Where a GeoTIFF lies, read from the bytes of a stranger's file. Needs rasterio, the extra `geo`.

Its pixels are never decoded; nothing but the GeoTIFF reader of GDAL is let at it, so that a file
cannot send GDAL to other files.
"""

from __future__ import annotations

import math
import warnings

from satmip_jax.sources.base import SourceError, UnreadableExample

DIGITS = 7  # of a degree, 1 cm: versions of PROJ differ beyond


def require(name: str) -> None:
    """Raises `SourceError`, with the name of the source, where rasterio is not installed."""
    try:
        import rasterio  # noqa: F401
    except ImportError as error:
        raise SourceError(
            f"{name}: locations are in GeoTIFFs: install rasterio, with "
            "pip install 'satmip-jax[geo]'"
        ) from error


def centre(data: bytes) -> tuple[float, float]:
    """WGS84 longitude and latitude of the middle of an image, to `DIGITS`.

    Raises:
      UnreadableExample: Damaged, no GeoTIFF, or it does not say where it lies.

    Example:
      >>> centre(Path("AnnualCrop_1.tif").read_bytes())
      (28.559055, 44.03522)
    """
    from rasterio.errors import NotGeoreferencedWarning
    from rasterio.io import MemoryFile
    from rasterio.warp import transform

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with MemoryFile(data) as file, file.open(driver="GTiff") as image:
                crs, affine = image.crs, image.transform
                x, y = image.xy(image.height / 2, image.width / 2, offset="ul")
    except Exception as error:  # whatever GDAL runs into
        raise UnreadableExample("damaged") from error
    if crs is None or affine.is_identity:
        raise UnreadableExample("no coordinates")
    try:
        (longitude,), (latitude,) = transform(crs, "EPSG:4326", [x], [y])
    except Exception as error:  # not of the Earth, or outside of its projection
        raise UnreadableExample("impossible coordinates") from error
    if not (math.isfinite(longitude) and math.isfinite(latitude)):
        raise UnreadableExample("impossible coordinates")
    return round(longitude, DIGITS), round(latitude, DIGITS)
