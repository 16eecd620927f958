"""OPTIMAL-31 (Wang, Liu, Chanussot, Li 2018): 1,860 scenes of 256x256 pixels in 31 classes.

sensor       Google Maps imagery from various sensors, not stated for each image
bands        RGB, 8 bit, JPEG
ground size  not stated for each image, so the field is missing
labels       31 classes, 60 images each, in alphabetical order; a subset of RESISC-45's names
metadata     none
splits       80 % train and 20 % test, as in the paper. The images of each split were not
             published, so they are drawn within each class. Lists `optimal31-{train,test}.txt`
             beside the data, in the format of TorchGeo's for other data sets, take precedence
licence      not stated by the publisher
source       https://doi.org/10.1109/TGRS.2018.2864987; archive and checksum unknown, mirrors differ

    Images/airplane/<image>.jpg
"""

from __future__ import annotations

from satmip_jax.sources.class_folders import ClassFolders
from satmip_jax.sources.splits import Shares


class Optimal31(ClassFolders):
    """OPTIMAL-31 from a zip or class folders; see `ClassFolders`.

    Example:
        >>> from satmip_jax.sources.optimal31 import Optimal31
        >>> source = Optimal31([Path("OPTIMAL-31")])
        >>> source.splits_from
        'drawn within each class with seed 0: train 80%, test 20%'
    """

    name = "optimal31"
    title = "OPTIMAL-31"
    classes = tuple(
        """
        airplane airport baseball_diamond basketball_court beach bridge chaparral church
        circular_farmland commercial_area dense_residential desert forest freeway golf_course
        ground_track_field harbor industrial_area intersection island lake meadow
        medium_residential mobile_home_park mountain overpass parking_lot railway
        rectangular_farmland roundabout runway
        """.split()  # noqa: SIM905
    )
    license = "not stated by the publisher"
    homepage = "https://doi.org/10.1109/TGRS.2018.2864987"
    suffixes = (".jpg", ".jpeg", ".png", ".tif")
    layout = "<class>/*.jpg in folders or zip files, such as Images/airplane/airplane_1.jpg"
    list_name = "optimal31"
    shares: Shares = (("train", 0.8), ("test", 0.2))
