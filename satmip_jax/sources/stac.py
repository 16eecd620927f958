"""STAC items on disk, with their assets: by themselves, in catalogues or in item collections.

sensor       `platform` of the items
bands        those of the asset, as RGB; see `satmip_jax.data.rendering`
labels       a property of the items, or none
metadata     `datetime`, `gsd`, `platform`, `eo:cloud_cover`, `view:*`, the bands' wavelengths,
             and the geometry; a GeoTIFF's own coordinates and tags fill in, see
             `satmip_jax.sources.geotiff_fields`
splits       random shares of the items, or none
licence      not stated
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

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
MAX_GEOMETRY = 64 << 10  # characters of a geometry as JSON; a longer one is left out


class STAC(FileSource):
    """STAC items in folders and zips; nothing is fetched from a server.

    Args:
        paths: Folders, searched for JSON files at any depth, and zips; or a catalogue, collection
            or item, whose links are followed within its folder. Assets must lie in the same folder
            or zip.
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
    def _items(self) -> tuple[list[StacItem], Skipped]:
        skipped = Skipped()
        roots = [p for p in self.paths if p.suffix.lower() in SUFFIXES and p.is_file()]
        return list(read_items(self._archives, roots, skipped)), skipped

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in self.__dict__.items() if name != "_items"}

    def refs(self) -> list[Ref]:
        """List every item with an image, or every tile with data, by id."""
        items, unread = self._items
        self.skipped = skipped = unread.copy()
        found: dict[str, StacItem] = {}
        for entry in items:
            collection = entry.item.collection_id
            name = f"{collection}/{entry.item.id}" if collection else entry.item.id
            if name in found:
                skipped.add("item of the same id as another", name)
            found.setdefault(name, entry)
        refs: list[Ref] = []
        for name in sorted(found):
            try:
                refs.extend(self._refs_of(name, found[name], skipped))
            except UnreadableExample as reason:
                skipped.add(str(reason), name)
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
        container, member, label, raw, geometry = ref.location[:5]
        image = read_image(self._archives, str(container), str(member), self.window_of(ref))
        metadata = Metadata.parse(with_file_fields(json.loads(str(raw)), image.fields), problems)
        footprint = image.footprint or (json.loads(str(geometry)) if geometry else None)
        name = None if label is None else str(label)
        return Example(ref.id, image.data, metadata, name, footprint=footprint)

    def window_of(self, ref: Ref) -> Window | None:
        """Return the tile."""
        numbers = ref.location[5:]
        return Window(*map(int, numbers)) if numbers else None  # type: ignore[arg-type]

    def row_of(self, ref: Ref) -> tuple[object, ...]:
        """Return label, fields and tile."""
        return ref.location[2:4] + ref.location[5:]

    def _refs_of(self, name: str, found: StacItem, skipped: Skipped) -> Iterator[Ref]:
        asset = choose_asset(found.item, self.asset)
        member = asset_member(found, asset)
        split = draw_split(self.shares, self.seed, name) if self.shares else "train"
        label = _label(found, self.label) if self.label else None
        raw = json.dumps(item_fields(found.item, asset))
        geometry = json.dumps(found.item.geometry) if found.item.geometry else None
        if geometry and len(geometry) > MAX_GEOMETRY:
            geometry = None
        location = (found.container, member, label, raw, geometry)
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
