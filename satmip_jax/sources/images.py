"""Any images without a table: single files, in folders and in zips.

sensor       unknown, or from the tags of GeoTIFFs
bands        of JPEG, PNG, TIFF, WebP and JPEG 2000 files, as RGB; see `satmip_jax.data.rendering`
labels       the folders of the files, or none
metadata     of GeoTIFFs, see `satmip_jax.sources.geotiff`; none of other images
splits       folders train, val and test at the top, or random shares of the files
licence      not stated
"""

from __future__ import annotations

from satmip_jax.data import headers
from satmip_jax.sources.geotiff import GeoTIFFs


class Images(GeoTIFFs):
    """Images of any kind; GeoTIFFs among them with their tags, and in tiles if so wished.

    The arguments are those of `GeoTIFFs`; `tile` cuts TIFFs only.

    Example:
        >>> from satmip_jax.sources.images import Images
        >>> Path("chips").mkdir()
        >>> for name in ("a.png", "b.tif", "notes.txt"):
        ...     Path("chips", name).touch()
        >>> [ref.id for ref in Images([Path("chips")]).refs()]
        ['a.png', 'b.tif']
    """

    name = "images"
    suffixes = headers.SUFFIXES
    what = "images"
