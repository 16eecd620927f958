"""STAC items on disk, with their assets: by themselves, in catalogues or in item collections.

sensor       `platform` of the items
bands        those of the asset, as RGB; see `satmip_jax.data.rendering`
labels       a property of the items, or none
metadata     `datetime`, `gsd`, `platform`, `eo:cloud_cover`, `view:*`, the bands' wavelengths,
             and the geometry; a GeoTIFF's own coordinates and tags fill in, see
             `satmip_jax.sources.geotiff_fields`
splits       random shares of the items, or none
licence      the publisher's
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

from satmip_jax.data.tiff_tiles import Window
from satmip_jax.metadata.record import Metadata, Problems
from satmip_jax.sources.archives import Archives
from satmip_jax.sources.base import Example, FileSource, Ref, SourceError, UnreadableExample
from satmip_jax.sources.splits import draw_split, parse_shares
from satmip_jax.sources.stac_items import (
    SUFFIXES,
    StacItem,
    asset_member,
    choose_asset,
    item_fields,
    read_items,
    with_file_fields,
)
from satmip_jax.sources.tiled_images import Tiles, read_image, tiff_data

MAX_LABEL = 128  # characters
MAX_CLASSES = 10_000


class STAC(FileSource):
    """STAC items in folders and zips; nothing is fetched from a server.

    Args:
        paths: Folders, searched for JSON files at any depth, and zips. Assets must lie in the same
            folder or zip as their item.
        asset: Key or role of the asset to use. By default "visual", else the only image that is
            neither a thumbnail nor an overview.
        label: Property of the items that is their class.
        tile: Side of the tiles in pixels that each GeoTIFF is cut into; 0 takes files whole. The
            last tiles of a row and column end at the border of the image.
        stride: Distance between tiles, less than --tile for overlap. 0 is that of --tile.
        min_data: Minimum share of pixels with data in a tile, 0 to 1. Tiles without any are always
            left out and counted.
        splits: Shares to draw at random, such as "train=0.8,val=0.2". Without it all is train.
        seed: Seed of the shares.

    Raises:
        SourceError: An option is out of range, or the shares do not add up to 1.
    """

    name = "stac"
    license = "the publisher's"
    image_size = 224

    def __init__(
        self,
        paths: Sequence[Path],
        asset: str = "",
        label: str = "",
        tile: int = 0,
        stride: int = 0,
        min_data: float = 0.0,
        splits: str = "",
        seed: int = 0,
    ) -> None:
        super().__init__(paths)
        for path in self.paths:
            if path.suffix.lower() in SUFFIXES and path.is_file():
                raise SourceError(f"{path}: give its folder, which also holds the items' assets")
        self._archives = Archives(self.paths, SUFFIXES, follow_links=False)
        self.asset, self.label = asset, label
        self.shares = parse_shares(splits)
        self.seed = seed
        self.tiles = Tiles(tile, stride, min_data)
        self.options = {
            "asset": asset,
            "label": label,
            "tile": tile,
            "stride": self.tiles.stride,
            "min_data": min_data,
            "shares": dict(self.shares),
            "seed": seed,
        }
        self.splits_from = (
            f"items drawn with seed {seed}: {splits}" if self.shares else "none: all is train"
        )
        if label:
            labels = {_label(found, label) for found in self._items[0]}
            self.classes = tuple(sorted(text for text in labels if text))
            if len(self.classes) > MAX_CLASSES:
                raise SourceError(
                    f"--label {label}: more than {MAX_CLASSES:,} different values: choose another"
                )

    @cached_property
    def _items(self) -> tuple[list[StacItem], Counter[str]]:
        skipped: Counter[str] = Counter()
        return list(read_items(self._archives, skipped)), skipped

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in self.__dict__.items() if name != "_items"}

    def refs(self) -> list[Ref]:
        """List every item with an image, or every tile with data, by id."""
        items, unread = self._items
        skipped = Counter(unread)
        self.skipped = skipped
        found: dict[str, StacItem] = {}
        for entry in items:
            collection = entry.item.collection_id
            name = f"{collection}/{entry.item.id}" if collection else entry.item.id
            if name in found:
                skipped["item of the same id as another"] += 1
            found.setdefault(name, entry)
        refs: list[Ref] = []
        for name in sorted(found):
            try:
                refs.extend(self._refs_of(name, found[name], skipped))
            except UnreadableExample as reason:
                skipped[str(reason)] += 1
        if not refs:
            reasons = "; ".join(f"{n} x {reason}" for reason, n in skipped.most_common(5))
            raise SourceError(
                f"none of the {len(items)} STAC items in {', '.join(map(str, self.paths))} can be "
                f"used ({reasons or 'no JSON files'}): expected items as JSON, with images as "
                "assets in the same folder or zip"
            )
        return refs

    def read(self, ref: Ref, problems: Problems) -> Example:
        """Read the asset of one item, or a tile of it."""
        container, member, label, raw, *numbers = ref.location
        window = Window(*map(int, numbers)) if numbers else None  # type: ignore[arg-type]
        image, of_file = read_image(self._archives, str(container), str(member), window)
        fields = with_file_fields(json.loads(str(raw)), of_file)
        metadata = Metadata.parse(fields, problems)
        return Example(ref.id, image, metadata, None if label is None else str(label))

    def _refs_of(self, name: str, found: StacItem, skipped: Counter[str]) -> Iterator[Ref]:
        asset = choose_asset(found.item, self.asset)
        member = asset_member(found, asset)
        split = draw_split(self.shares, self.seed, name) if self.shares else "train"
        label = _label(found, self.label) if self.label else None
        raw = json.dumps(item_fields(found.item, asset))
        location = (found.container, member, label, raw)
        if not self.tiles.tile:
            yield Ref(name, split, location)
            return
        for window in self.tiles.windows(
            tiff_data(self._archives, found.container, member), skipped
        ):
            yield Ref(f"{name}#{window.x},{window.y}", split, (*location, *window))


def _label(found: StacItem, name: str) -> str | None:
    value = found.item.properties.get(name)
    if not isinstance(value, str | int) or isinstance(value, bool):
        return None
    text = str(value).strip()
    return text if 0 < len(text) <= MAX_LABEL and text.isprintable() else None
