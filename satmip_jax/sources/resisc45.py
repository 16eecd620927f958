"""NWPU-RESISC45 (Cheng, Han, Lu 2017): 31,500 scenes of 256x256 pixels in 45 classes.

sensor       Google Earth: various satellites and aerial cameras, not stated for each image
bands        RGB, 8 bit, JPEG
ground size  0.2 to 30 m per pixel, not stated for each image, so the field is missing
labels       45 classes, 700 images each, in alphabetical order
metadata     none
splits       none by the publisher. The lists `resisc45-{train,val,test}.txt` (60/20/20, Neumann et
             al. 2019), which TorchGeo downloads from https://hf.co/datasets/torchgeo/resisc45, are
             used if they lie beside the data. Without them 60/20/20 are drawn within each class;
             prepared data records which of the two was used
licence      not stated by the publisher
source       https://doi.org/10.1109/JPROC.2017.2675998. The publisher's NWPU-RESISC45.rar, to be
             unpacked first, is linked from
             http://www.escience.cn/people/JunweiHan/NWPU-RESISC45.html; TorchGeo's copy, a zip,
             has MD5 75206b2e16446591afa88e2628744886

    NWPU-RESISC45/airplane/airplane_001.jpg
"""

from __future__ import annotations

from collections.abc import Mapping

from satmip_jax.sources.class_folders import ClassFolders


class RESISC45(ClassFolders):
    """NWPU-RESISC45 from its zip or class folders; see `ClassFolders`.

    Example:
        >>> from satmip_jax.sources.resisc45 import RESISC45
        >>> image = Path("NWPU-RESISC45/airplane/airplane_001.jpg")
        >>> image.parent.mkdir(parents=True)
        >>> image.touch()
        >>> RESISC45([Path("NWPU-RESISC45")]).refs()[0].id
        'airplane/airplane_001.jpg'
    """

    name = "resisc45"
    title = "NWPU-RESISC45"
    classes = tuple(
        """
        airplane airport baseball_diamond basketball_court beach bridge chaparral church
        circular_farmland cloud commercial_area dense_residential desert forest freeway golf_course
        ground_track_field harbor industrial_area intersection island lake meadow
        medium_residential mobile_home_park mountain overpass palace parking_lot railway
        railway_station rectangular_farmland river roundabout runway sea_ice ship snowberg
        sparse_residential stadium storage_tank tennis_court terrace thermal_power_station wetland
        """.split()  # noqa: SIM905
    )
    license = "not stated by the publisher"
    homepage = "https://doi.org/10.1109/JPROC.2017.2675998"
    layout = (
        "<class>/*.jpg in folders or zip files, such as NWPU-RESISC45/airplane/airplane_001.jpg"
    )
    list_name = "resisc45"
    list_checksums: Mapping[str, str] = {
        "train": "b5a4c05a37de15e4ca886696a85c403e",
        "val": "a0770cee4c5ca20b8c32bbd61e114805",
        "test": "3dda9e4988b47eb1de9f07993653eb08",
    }
    tfds_name = "resisc45"
