"""What data sets of one image a file in one folder a class have in common.

    <anything>/<class>/<image>.jpg        in folders or zips, with any leading folders

A data set of that kind is a subclass in a file of its own, of constants and a docstring.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from satmip_jax.metadata.record import Metadata, Problems
from satmip_jax.sources.archives import Archives, parts
from satmip_jax.sources.base import Example, Ref, SourceError
from satmip_jax.sources.splits import SIXTY_TWENTY_TWENTY, Shares, Splits

MAX_IMAGE_BYTES = 16 << 20  # 256x256 pixels take at most 200 KB; more than this is no such image


class ClassFolders:
    """Images in class folders; the folder's name is the label, whatever its case and signs.

    Args:
      paths: Zips, and folders that hold zips or class folders.
      splits_folder: Folder of the lists `<list_name>-<split>.txt`; they are also found among
        `paths` and beside them. Without lists the split is drawn, see `splits`.
      seed: Of that draw.

    Attributes of the subclasses, besides those of every `Source`:
      title: The data set's name in messages.
      suffixes: Endings of its files, in lower case.
      layout: How its files lie, for messages.
      facts: Metadata that is true of every image.
      list_name: See `splits_folder`.
      list_checksums: Split -> MD5 of the published list.
      shares: How much of each class goes to which split in a draw.

    Raises:
      SourceError: No images, or lists that do not fit.
    """

    name: str
    title: str
    classes: tuple[str, ...]
    license: str
    homepage: str
    suffixes: tuple[str, ...] = (".jpg", ".jpeg")
    layout: str
    image_size = 256
    context_ratio: float | None = None
    facts: Mapping[str, Any] = {}
    list_name: str
    list_checksums: Mapping[str, str] = {}
    shares: Shares = SIXTY_TWENTY_TWENTY

    def __init__(
        self, paths: Sequence[Path], splits_folder: str | Path | None = None, seed: int = 0
    ) -> None:
        self.archives = Archives(paths, self.suffixes)
        self.splits = Splits.find(
            self.list_name,
            self.shares,
            int(seed),
            self.archives.paths,
            given=splits_folder,
            checksums=self.list_checksums,
        )
        self.splits_from = self.splits.said
        self.options: dict[str, Any] = {"splits": self.splits_from}
        self.skipped: Counter[str] = Counter()

    def refs(self) -> list[Ref]:
        """Every image in a folder of a class, in alphabetical order."""
        self.skipped = Counter()
        classes = {plain(name): name for name in self.classes}
        labels: dict[str, str] = {}
        found: dict[str, tuple[str, str]] = {}
        for container, member in self.archives.files():
            names = parts(container, member)
            label = classes.get(plain(names[-2]))
            if label is None:
                self.skipped[f"image in {names[-2][:40]!r}, which is no class"] += 1
                continue
            key = f"{label}/{names[-1]}"
            if key in labels:
                self.skipped["the same image again, in another place"] += 1
                continue
            labels[key], found[key] = label, (container, member)
        if not labels:
            raise self.nothing()
        split = self.splits.assign(labels, self.skipped)
        return [Ref(key, split[key], (*found[key], labels[key])) for key in sorted(split)]

    def read(self, ref: Ref, problems: Problems) -> Example:
        """Reads one image; raises `UnreadableExample` when its file cannot be read."""
        container, member, label = ref.location
        image = self.archives.read(str(container), str(member), MAX_IMAGE_BYTES)
        return Example(ref.id, image, Metadata.parse(self.facts, problems), str(label))

    def nothing(self) -> SourceError:
        """The error to raise where no image is in a folder of a class."""
        elsewhere = "; ".join(f"{n} x {reason}" for reason, n in self.skipped.most_common(3))
        return self.archives.nothing(
            f"images of {self.title}", f"{self.layout}{f' ({elsewhere})' if elsewhere else ''}"
        )


def plain(name: str) -> str:
    """A class's name without case, spaces and signs: publishers and mirrors differ in these."""
    return "".join(c for c in name.casefold() if c.isalnum())
