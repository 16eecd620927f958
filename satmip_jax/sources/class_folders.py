"""Base class of data sets with one image per file and one folder per class.

    <anything>/<class>/<image>.jpg        in folders or zips, with any leading folders

Such a data set is a subclass in its own file, with constants and a docstring.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from satmip_jax.metadata.record import Metadata, Problems
from satmip_jax.sources.archives import Archives, nfc, path_parts
from satmip_jax.sources.base import Example, FileSource, Ref
from satmip_jax.sources.splits import SIXTY_TWENTY_TWENTY, Shares, Splits

MAX_IMAGE_BYTES = 16 << 20  # an image of 256x256 pixels takes at most 200 KB


class ClassFolders(FileSource):
    """Images in class folders; the name of the folder is the label, ignoring case and signs.

    Args:
        paths: Zips, and folders that hold zips or class folders.
        splits_folder: Folder of the split lists, NAME-train.txt and so on. Lists beside the data
            are found without it. Without lists the split is drawn at random.
        seed: Seed of the random split.

    Attributes:
        title: Name of the data set in messages.
        suffixes: Suffixes of its files, in lower case.
        layout: Layout of its files, for messages.
        facts: Metadata that applies to every image.
        list_name: The split lists are called `<list_name>-<split>.txt`.
        list_checksums: Split -> MD5 of the published list.
        shares: Share of each class in each split, for a random split.

    Raises:
        SourceError: No images, or unusable split lists.
    """

    title: str
    suffixes: tuple[str, ...] = (".jpg", ".jpeg")
    layout: str
    facts: Mapping[str, Any] = {}
    list_name: str
    list_checksums: Mapping[str, str] = {}
    shares: Shares = SIXTY_TWENTY_TWENTY

    def __init__(
        self, paths: Sequence[Path], splits_folder: str | Path | None = None, seed: int = 0
    ) -> None:
        super().__init__(paths)
        self.archives = Archives(paths, self.suffixes)
        self.splits = Splits.find(
            self.list_name,
            self.shares,
            seed,
            self.paths,
            folder=splits_folder,
            checksums=self.list_checksums,
        )
        self.splits_from = self.splits.description
        self.options = {"splits": self.splits_from}

    def refs(self) -> list[Ref]:
        """List every image in a folder of a class, in alphabetical order."""
        skipped: Counter[str] = Counter()
        self.skipped = skipped
        classes = {normalize_name(name): name for name in self.classes}
        labels: dict[str, str] = {}
        files: dict[str, tuple[str, str]] = {}
        for container, member, name in self.archives.files():
            names = path_parts(container, name)
            label = classes.get(normalize_name(names[-2]))
            if label is None:
                skipped[f"image in {names[-2][:40]!r}, which is no class"] += 1
                continue
            key = f"{label}/{names[-1]}"
            if key in labels:
                skipped["the same image again, in another place"] += 1
                continue
            labels[key], files[key] = label, (container, member)
        skipped.update(self.archives.skipped)
        if not labels:
            elsewhere = "; ".join(f"{n} x {reason}" for reason, n in skipped.most_common(3))
            raise self.archives.nothing_found(
                f"images of {self.title}", f"{self.layout}{f' ({elsewhere})' if elsewhere else ''}"
            )
        split = self.splits.assign(labels, skipped)
        return [Ref(key, split[key], (*files[key], labels[key])) for key in sorted(split)]

    def read(self, ref: Ref, problems: Problems) -> Example:
        """Read one image."""
        container, member, label = ref.location
        image = self.archives.read(str(container), str(member), MAX_IMAGE_BYTES)
        return Example(ref.id, image, Metadata.parse(self.facts, problems), str(label))


def normalize_name(name: str) -> str:
    """Return the name of a class without case, spaces and signs, which differ between mirrors.

    Example:
        >>> from satmip_jax.sources.class_folders import normalize_name
        >>> normalize_name("Baseball_Diamond")
        'baseballdiamond'
    """
    return "".join(c for c in nfc(name).casefold() if c.isalnum())
