"""FGSC-23 (Zhang, Lv, Yao, Xiong, Fu 2020): 4,081 chips of ships in 23 classes.

sensor       Google Earth and GF-2; which, is not stated for each chip
bands        RGB or grey, 8 bit, JPEG; chips of many sizes
ground size  not stated for each chip: a missing field
labels       23 classes, class 0 for what is no ship; a folder is called by its class's number
metadata     none. A file's name begins with the number of its class; the paper tells of an aspect
             ratio and a direction for each ship, but the publisher does not say how names state
             them, so they are not read
splits       by folder: train and test (3,256 and 825 chips, as counted by users of the release;
             the publisher says 4,080 in all)
licence      for research only
source       https://github.com/xiong577/ship-datasets, a copy by an author of SatMIP at
             https://huggingface.co/datasets/jbourcier/fgsc23; checksum: not known. The paper:
             https://doi.org/10.1109/JSTARS.2020.2981686

    FGSC-23/train/0/<image>.jpg        and test/, up to 22/
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from satmip_jax.metadata.record import Metadata, Problems
from satmip_jax.sources.archives import Archives, parts
from satmip_jax.sources.base import Example, Ref

# A label is the number of a folder.
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


class FGSC23:
    """FGSC-23 from its zip, or its folders train and test.

    Args:
      paths: Zips, and folders that hold zips or the two folders at any depth; or these two.

    Raises:
      SourceError: No chips.

    Example:
      >>> source = FGSC23([Path("FGSC-23")])
      >>> source.refs()[0].split
      'test'
    """

    name = "fgsc23"
    classes = CLASSES
    license = "for research only"
    homepage = "https://github.com/xiong577/ship-datasets"
    image_size = 256
    context_ratio: float | None = None
    splits_from = "the publisher's folders train and test"

    def __init__(self, paths: Sequence[Path]) -> None:
        self.archives = Archives(paths, (".jpg", ".jpeg"))
        self.options: dict[str, Any] = {"splits": self.splits_from}
        self.skipped: Counter[str] = Counter()

    def refs(self) -> list[Ref]:
        """Every chip in a numbered folder of train or test, in alphabetical order."""
        self.skipped = Counter()
        refs: dict[str, Ref] = {}
        for container, member in self.archives.files():
            split, number, name = ("", "", *parts(container, member))[-3:]
            if split not in SPLITS:
                self.skipped["chip in neither train/<number> nor test/<number>"] += 1
            elif number not in _NUMBERS:
                self.skipped[f"chip in {number[:40]!r}, which is not the number of a class"] += 1
            elif (key := f"{split}/{number}/{name}") in refs:
                self.skipped["the same chip again, in another place"] += 1
            else:
                refs[key] = Ref(key, split, (container, member, _NUMBERS[number]))
        if not refs:
            raise self.archives.nothing(
                "chips of FGSC-23", "train/<number>/*.jpg and test/<number>/*.jpg, numbers 0 to 22"
            )
        return [refs[key] for key in sorted(refs)]

    def read(self, ref: Ref, problems: Problems) -> Example:
        """Reads one chip; raises `UnreadableExample` when its file cannot be read."""
        container, member, label = ref.location
        image = self.archives.read(str(container), str(member), MAX_CHIP_BYTES)
        return Example(ref.id, image, Metadata.parse({}, problems), str(label))
