"""Any folder or zip of GeoTIFFs and georeferenced JPEG 2000, whole or in tiles.

sensor       from the tags of the files
bands        any, as RGB; see `satmip_jax.data.rendering`
labels       the folders of the files, or none
metadata     coordinates (location, ground sampling distance, pixel size, UTM zone), and the tags of
             common producers; see `satmip_jax.sources.geotiff_fields`. Nothing beside a file is
             read, such as .aux.xml or .tfw
splits       folders train, val and test at the top, or random shares of the files; all tiles of a
             file are in the same split
licence      not stated
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from satmip_jax.data import headers
from satmip_jax.data.tiff_tiles import Window
from satmip_jax.metadata.record import Metadata, Problems
from satmip_jax.sources.archives import Archives
from satmip_jax.sources.base import (
    Example,
    FileSource,
    Ref,
    Skipped,
    SourceError,
    UnreadableExample,
)
from satmip_jax.sources.splits import draw_split, parse_shares
from satmip_jax.sources.tiled_images import Tiles, read_image, tiff_data

_SPLITS = ("train", "val", "test")  # whatever their case


class GeoTIFFs(FileSource):
    """GeoTIFFs: single files, in folders and in zips.

    Args:
        paths: Files, folders, searched at any depth, and zips, including those at the top of a
            folder.
        classes: With "folders", the folder of a file is its label.
        tile: Side of the tiles in pixels that each file is cut into; 0 takes files whole. The last
            tiles of a row and column end at the border of the image.
        stride: Distance between tiles, less than --tile for overlap. 0 is that of --tile.
        min_data: Minimum share of pixels with data in a tile, 0 to 1. Tiles without any are always
            left out and counted. NoData, masks, alpha bands and NaN mark missing pixels.
        splits: Shares to draw at random, such as "train=0.8,val=0.2", instead of the folders
            train, val and test. Without these folders, all is train.
        seed: Seed of the shares.

    Attributes:
        suffixes: Of the files, in lower case.
        what: The files in messages.

    Raises:
        SourceError: An option is out of range, the shares do not add up to 1, or no file lies in a
            folder of a class.

    Example:
        >>> from satmip_jax.sources.geotiff import GeoTIFFs
        >>> Path("scenes/train/barn").mkdir(parents=True)
        >>> Path("scenes/train/barn/a.tif").touch()
        >>> source = GeoTIFFs([Path("scenes")], classes="folders")
        >>> source.classes
        ('barn',)
        >>> [(ref.id, ref.split) for ref in source.refs()]
        [('train/barn/a.tif', 'train')]
    """

    name = "geotiff"
    image_size = 224
    label_option = "--classes folders takes the folder of each file as its class"
    suffixes: tuple[str, ...] = headers.TAGGED
    what = "GeoTIFFs"

    def __init__(
        self,
        paths: Sequence[Path],
        classes: Literal["none", "folders"] = "none",
        tile: int = 0,
        stride: int = 0,
        min_data: float = 0.0,
        splits: str = "",
        seed: int = 0,
    ) -> None:
        super().__init__(paths)
        self.archives = Archives(
            self.paths, self.suffixes, follow_links=False, single=self.suffixes
        )
        self.shares = parse_shares(splits)
        self.seed = seed
        self.tiles = Tiles(tile, stride, min_data)
        self.labels_from = classes
        self.options = {
            "classes": classes,
            "tile": tile,
            "stride": self.tiles.stride,
            "min_data": min_data,
            "shares": dict(self.shares),
            "seed": seed,
        }
        self.splits_from = (
            f"files drawn with seed {seed}: {splits}"
            if self.shares
            else "the folders train, val and test; else train"
        )
        if classes == "folders":
            labels = [_label(file.name) for file in self.archives.files()]
            self.classes = tuple(sorted({label for label in labels if label}))
            if labels and not self.classes:
                raise SourceError(
                    f"--classes folders: none of the {len(labels):,} {self.what} in "
                    f"{', '.join(map(str, self.paths))} lies in the folder of a class: leave out "
                    "--classes folders, or move the files into one folder per class"
                )

    def refs(self) -> list[Ref]:
        """List every file, or every tile with data, by path; reads sizes and masks for tiles."""
        from tqdm import tqdm

        self.skipped = skipped = Skipped()
        files: dict[str, tuple[str, str]] = {}
        for container, member, name in self.archives.files():
            if name in files:
                skipped.add("file of the same path as another", os.path.join(container, member))
            elif self.labels_from == "folders" and not _label(name):
                skipped.add("file in no folder of a class", os.path.join(container, member))
            else:
                files[name] = container, member
        skipped.update(self.archives.skipped)
        if not files:
            layout = ", ".join(f"*{suffix}" for suffix in self.suffixes)
            raise self.archives.nothing_found(self.what, f"{layout} in folders or zip files")
        progress = tqdm(
            sorted(files), desc=f"listing {self.name}", unit=" files", delay=2, leave=False
        )
        refs = [ref for name in progress for ref in self._refs_of(name, *files[name], skipped)]
        if not refs:
            reasons = "; ".join(f"{n} x {reason}" for reason, n in skipped.most_common(5))
            raise SourceError(
                f"none of the {len(files)} {self.what} in {', '.join(map(str, self.paths))} has a "
                f"tile that can be used: {reasons}"
            )
        return refs

    def read(self, ref: Ref, problems: Problems) -> Example:
        """Read one file or tile."""
        container, member, label = ref.location[:3]
        image = read_image(self.archives, str(container), str(member), self.window_of(ref))
        metadata = Metadata.parse(image.fields, problems)
        name = None if label is None else str(label)
        return Example(ref.id, image.data, metadata, name, footprint=image.footprint)

    def window_of(self, ref: Ref) -> Window | None:
        """Return the tile."""
        numbers = ref.location[3:]
        return Window(*map(int, numbers)) if numbers else None  # type: ignore[arg-type]

    def _refs_of(self, name: str, container: str, member: str, skipped: Skipped) -> Iterator[Ref]:
        """Yield the examples of one file; count one that cannot be cut into tiles."""
        split = self._split(name)
        label = _label(name) if self.labels_from == "folders" else None
        if not self.tiles.tile or not member.lower().endswith(headers.TAGGED):
            yield Ref(name, split, (container, member, label))
            return
        try:
            data = tiff_data(self.archives, container, member)
            for window in self.tiles.windows(data, skipped):
                place = f"{window.x},{window.y}"
                yield Ref(f"{name}#{place}", split, (container, member, label, *window))
        except UnreadableExample as reason:
            place = os.path.join(container, member)
            skipped.add(f"file that cannot be cut into tiles: {reason}", place)

    def _split(self, name: str) -> str:
        if self.shares:
            return draw_split(self.shares, self.seed, name)
        top, inside, _ = name.partition("/")
        return top.lower() if inside and top.lower() in _SPLITS else "train"


def _label(name: str) -> str | None:
    """Return the folder of a file; None at the top, or in a folder of a split."""
    parts = name.split("/")[:-1]
    if not parts or (len(parts) == 1 and parts[0].lower() in _SPLITS):
        return None
    return parts[-1] if parts[-1].isprintable() else None
