"""UC Merced Land Use (Yang, Newsam 2010): 2,100 aerial images of 256x256 pixels in 21 classes.

sensor       aerial cameras (USGS National Map Urban Area Imagery)
bands        RGB, 8 bit, TIFF
ground size  0.3 m per pixel (1 foot); 44 images are a few pixels smaller or larger than 256
labels       21 classes, 100 images each, in alphabetical order
metadata     only the ground size
splits       none by the publisher. The lists `uc_merced-{train,val,test}.txt` (60/20/20, Neumann et
             al. 2019), which TorchGeo downloads from https://hf.co/datasets/torchgeo/ucmerced, are
             used if they lie beside the data. Without them 60/20/20 are drawn within each class;
             prepared data records which of the two was used
licence      public domain (USGS imagery)
source       http://weegee.vision.ucmerced.edu/datasets/landuse.html; UCMerced_LandUse.zip has
             MD5 5b7ec56793786b6dc8a908e8854ac0e4, SHA-256
             06c539ef28703a58fb07bd2837991ac7c48b813b00bb12ac197efd813a18daeb

    UCMerced_LandUse/Images/agricultural/agricultural00.tif
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from satmip_jax.sources.class_folders import ClassFolders


class UCMerced(ClassFolders):
    """UC Merced Land Use from its zip or class folders; see `ClassFolders`.

    Example:
        >>> from satmip_jax.sources.ucmerced import UCMerced
        >>> source = UCMerced([Path("UCMerced_LandUse.zip")], seed=1)
        >>> source.splits_from
        'drawn within each class with seed 1: train 60%, val 20%, test 20%'
    """

    name = "ucmerced"
    title = "UC Merced Land Use"
    classes = tuple(
        """
        agricultural airplane baseballdiamond beach buildings chaparral denseresidential forest
        freeway golfcourse harbor intersection mediumresidential mobilehomepark overpass parkinglot
        river runway sparseresidential storagetanks tenniscourt
        """.split()  # noqa: SIM905
    )
    license = "public domain (USGS National Map imagery)"
    homepage = "http://weegee.vision.ucmerced.edu/datasets/landuse.html"
    suffixes = (".tif", ".tiff")
    layout = (
        "<class>/*.tif in folders or zip files, such as "
        "UCMerced_LandUse/Images/agricultural/agricultural00.tif"
    )
    facts: Mapping[str, Any] = {"gsd": (0.3, 0.3)}
    list_name = "uc_merced"
    list_checksums: Mapping[str, str] = {
        "train": "f2fb12eb2210cfb53f93f063a35ff374",
        "val": "11ecabfc52782e5ea6a9c7c0d263aca0",
        "test": "046aff88472d8fc07c4678d03749e28d",
    }
    tfds_name = "uc_merced"
