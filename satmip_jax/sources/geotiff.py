"""Location of an untrusted GeoTIFF; pixels are never decoded."""

from __future__ import annotations

import math

from satmip_jax.data.tiff import open_dataset
from satmip_jax.sources.base import UnreadableExample

DIGITS = 7  # decimals of a degree (1 cm); versions of PROJ differ beyond


def centre(data: bytes) -> tuple[float, float]:
    """Return longitude and latitude of the centre of an image.

    Args:
        data: Contents of a GeoTIFF.

    Returns:
        WGS84 degrees, rounded to `DIGITS` decimals.

    Raises:
        UnreadableExample: The file is damaged, no GeoTIFF, or has no usable coordinates.
    """
    from rasterio.warp import transform

    try:
        with open_dataset(data) as image:
            crs, affine = image.crs, image.transform
            x, y = image.xy(image.height / 2, image.width / 2, offset="ul")
    except Exception as error:  # GDAL raises many types
        raise UnreadableExample("damaged") from error
    if crs is None or affine.is_identity:
        raise UnreadableExample("no coordinates")
    try:
        (longitude,), (latitude,) = transform(crs, "EPSG:4326", [x], [y])
    except Exception as error:  # not on Earth, or outside the projection
        raise UnreadableExample("impossible coordinates") from error
    if not (math.isfinite(longitude) and math.isfinite(latitude)):
        raise UnreadableExample("impossible coordinates")
    return round(longitude, DIGITS), round(latitude, DIGITS)
