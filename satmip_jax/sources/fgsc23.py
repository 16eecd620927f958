"""FGSC-23 (Zhang, Lv, Yao, Xiong, Fu 2020): 4,081 chips of ships in 23 classes.

sensor       Google Earth and GF-2, not stated for each chip
bands        RGB or grey, 8 bit, JPEG; chips of many sizes
ground size  not stated for each chip, so the field is missing
labels       23 classes, class 0 is "non-ship"; the name of a folder is the number of its class
metadata     none. File names begin with the number of the class. The paper describes an aspect
             ratio and a direction for each ship, but how file names encode them is not documented,
             so they are not read
splits       by folder: train and test (3,256 and 825 chips, as counted by users of the release;
             the publisher states 4,080 in total)
licence      for research only
source       https://github.com/xiong577/ship-datasets; a copy by an author of SatMIP is at
             https://huggingface.co/datasets/jbourcier/fgsc23; checksum unknown. Paper:
             https://doi.org/10.1109/JSTARS.2020.2981686

    FGSC-23/train/0/<image>.jpg        folders train and test, classes 0 to 22
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from satmip_jax.metadata.record import Metadata, Problems
from satmip_jax.sources.archives import Archives, path_parts
from satmip_jax.sources.base import Example, FileSource, Ref

CLASSES = (
    "non-ship",
    "air carrier",
    "destroyer",
    "landing craft",
    "frigate",
    "amphibious transport dock",
    "cruiser",
    "Tarawa-class amphibious assault ship",
    "amphibious assault ship",
    "command ship",
    "submarine",
    "medical ship",
    "combat boat",
    "auxiliary ship",
    "container ship",
    "car carrier",
    "hovercraft",
    "bulk carrier",
    "oil tanker",
    "fishing boat",
    "passenger ship",
    "liquefied gas ship",
    "barge",
)
SPLITS = ("train", "test")
MAX_CHIP_BYTES = 16 << 20
_NUMBERS = {str(number): name for number, name in enumerate(CLASSES)}


class FGSC23(FileSource):
    """FGSC-23 from its zip, or its folders train and test.

    Args:
        paths: Zips, and folders that hold zips or the folders train and test at any depth.

    Example:
        >>> from satmip_jax.sources.fgsc23 import FGSC23
        >>> chip = Path("FGSC-23/test/5/5_0_10.jpg")
        >>> chip.parent.mkdir(parents=True)
        >>> chip.touch()
        >>> FGSC23([Path("FGSC-23")]).refs()[0].id
        'test/5/5_0_10.jpg'
    """

    name = "fgsc23"
    classes = CLASSES
    license = "for research only"
    homepage = "https://github.com/xiong577/ship-datasets"
    splits_from = "the publisher's folders train and test"

    def __init__(self, paths: Sequence[Path]) -> None:
        super().__init__(paths)
        self.archives = Archives(paths, (".jpg", ".jpeg"))
        self.options = {"splits": self.splits_from}

    def refs(self) -> list[Ref]:
        """List every chip in a numbered folder of train or test, in alphabetical order."""
        skipped: Counter[str] = Counter()
        self.skipped = skipped
        refs: dict[str, Ref] = {}
        for container, member, path in self.archives.files():
            split, number, name = ("", "", *path_parts(container, path))[-3:]
            if split not in SPLITS:
                skipped["chip in neither train/<number> nor test/<number>"] += 1
            elif number not in _NUMBERS:
                skipped[f"chip in {number[:40]!r}, which is not the number of a class"] += 1
            elif (key := f"{split}/{number}/{name}") in refs:
                skipped["the same chip again, in another place"] += 1
            else:
                refs[key] = Ref(key, split, (container, member, _NUMBERS[number]))
        skipped.update(self.archives.skipped)
        if not refs:
            raise self.archives.nothing_found(
                "chips of FGSC-23", "train/<number>/*.jpg and test/<number>/*.jpg, numbers 0 to 22"
            )
        return [refs[key] for key in sorted(refs)]

    def read(self, ref: Ref, problems: Problems) -> Example:
        """Read one chip."""
        container, member, label = ref.location
        image = self.archives.read(str(container), str(member), MAX_CHIP_BYTES)
        return Example(ref.id, image, Metadata.parse({}, problems), str(label))
