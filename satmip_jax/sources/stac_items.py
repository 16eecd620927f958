"""Untrusted STAC items, catalogues and item collections on disk; nothing is ever fetched.

pystac only converts the contents of files, of any version of STAC, to its latest one. This module
alone opens files: those of the given folders and zips, of bounded size. Links are followed from a
catalogue that is given itself, within its folder; others are counted.
"""

from __future__ import annotations

import json
import os
import posixpath
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from satmip_jax.metadata.record import Absent
from satmip_jax.runtime.warning_filters import ignored
from satmip_jax.sources.archives import Archives
from satmip_jax.sources.base import Skipped, UnreadableExample

MAX_JSON_BYTES = 64 << 20
SUFFIXES = (".json", ".geojson")

_IMAGES = {
    "image/tiff": (".tif", ".tiff"),
    "image/vnd.stac.geotiff": (),
    "image/jpeg": (".jpg", ".jpeg"),
    "image/png": (".png",),
    "image/webp": (".webp",),
    "image/jp2": (".jp2",),
}
_PYSTAC = threading.Lock()  # it fills a registry of extensions while it reads
_UNREAD = object()  # the content of a file that could not be read
_SERVERS = ("http", "https", "s3", "gs")
_SERVER_LINK = "link of a catalogue to a server, not followed"
_SMALL = {"thumbnail", "overview"}  # roles
_ITEM_FIELDS = {
    "timestamp": "datetime",
    "gsd": "gsd",
    "sensor_platform": "platform",
    "cloud_cover": "eo:cloud_cover",
    "off_nadir_angle": "view:off_nadir",
    "target_azimuth_angle": "view:azimuth",
    "sun_azimuth_angle": "view:sun_azimuth",
    "sun_elevation_angle": "view:sun_elevation",
}
_RGB = ("red", "green", "blue")
_ZONE = re.compile(r"EPSG:32[67]([0-9]{2})")


class StacItem(NamedTuple):
    """A STAC item and where it is.

    Attributes:
        container: The folder or zip.
        member: Path of its JSON file in there.
        item: The item, a `pystac.Item`.
    """

    container: str
    member: str
    item: Any


def read_items(archives: Archives, roots: Sequence[Path], skipped: Skipped) -> Iterator[StacItem]:
    """Yield the items of all JSON files, by path; count what cannot be read.

    Catalogues and collections in a folder or zip name items that lie in it, too, so their links are
    not needed there.

    Args:
        archives: Lists the JSON files.
        roots: Catalogues, collections and items given by themselves; their links are followed.
        skipped: Counts files and items that are left out, by reason.
    """
    for container, member, _ in archives.files():
        content = _load(archives, container, member, skipped)
        if _is_catalogue(content):
            for link in _links(content):
                if urlsplit(link).scheme in _SERVERS:
                    skipped.add(_SERVER_LINK, os.path.join(container, member))
        else:
            yield from _items_of(container, member, content, skipped)
    skipped.update(archives.skipped)
    for root in roots:
        yield from _linked_items(archives, root, skipped)


def _linked_items(archives: Archives, root: Path, skipped: Skipped) -> Iterator[StacItem]:
    """Yield the items that a file leads to within its folder."""
    container = str(root.parent)
    waiting, seen = [root.name], {os.path.realpath(root)}
    while waiting:
        member = waiting.pop()
        content = _load(archives, container, member, skipped)
        if not _is_catalogue(content):
            yield from _items_of(container, member, content, skipped)
            continue
        found = []
        for link in _links(content):
            if urlsplit(link).scheme in _SERVERS:
                skipped.add(_SERVER_LINK, os.path.join(container, member))
                continue
            try:
                linked = local_member(container, member, link)
            except UnreadableExample as reason:
                skipped.add(f"link of a catalogue: {reason}", os.path.join(container, member))
                continue
            real = os.path.realpath(os.path.join(container, linked))
            if real not in seen:
                seen.add(real)
                found.append(linked)
        waiting.extend(reversed(found))


def is_stac(content: object) -> bool:
    """Whether the content of a JSON file is a STAC item, catalogue, collection or item collection.

    Example:
        >>> from satmip_jax.sources.stac_items import is_stac
        >>> is_stac({"type": "Catalog", "stac_version": "1.0.0"}), is_stac([{"path": "a.png"}])
        (True, False)
    """
    if not isinstance(content, dict):
        return False
    features = content.get("features")
    first = features[0] if isinstance(features, list) and features else content
    return isinstance(first, dict) and "stac_version" in first


def _load(archives: Archives, container: str, member: str, skipped: Skipped) -> Any:
    """Return the content of a JSON file; `_UNREAD`, counted, if it cannot be read."""
    place = os.path.join(container, member)
    try:
        data = archives.read(container, member, MAX_JSON_BYTES)
        return json.loads(data, parse_constant=lambda _: None)
    except UnreadableExample as error:
        skipped.add(f"JSON file: {error}", place)
    except (ValueError, RecursionError):
        skipped.add("JSON file that is not JSON", place)
    return _UNREAD


def _is_catalogue(content: Any) -> bool:
    return isinstance(content, dict) and content.get("type") in ("Catalog", "Collection")


def _items_of(container: str, member: str, content: Any, skipped: Skipped) -> Iterator[StacItem]:
    """Yield the item or items in the content of a file."""
    import pystac

    if content is _UNREAD:
        return
    collection = isinstance(content, dict) and content.get("type") == "FeatureCollection"
    features = content.get("features") if collection else [content]
    place = os.path.join(container, member)
    for feature in features if isinstance(features, list) else []:
        if not isinstance(feature, dict) or "stac_version" not in feature:
            skipped.add("JSON that is no STAC item", place)
            continue
        try:
            item = _parse(feature, pystac.Item)
        except Exception as error:  # pystac raises many types
            skipped.add(f"STAC item that pystac cannot read: {type(error).__name__}", place)
            continue
        yield StacItem(container, member, item)


def _links(content: Mapping[str, Any]) -> Iterator[str]:
    links = content.get("links")
    for link in links if isinstance(links, list) else []:
        if isinstance(link, dict) and link.get("rel") in ("child", "item"):
            yield str(link.get("href", ""))[:2048]


def _parse(feature: dict[str, Any], item_class: Any) -> Any:
    with _PYSTAC, ignored(module="pystac"):  # it warns of older versions of STAC
        item = item_class.from_dict(feature)
    if not isinstance(item.id, str) or not isinstance(item.properties, dict):
        raise TypeError("id is no text, or properties are no object")
    f"{item.id}{item.collection_id}".encode()  # fails for text that is not Unicode
    return item


def choose_asset(item: Any, wanted: str) -> Any:
    """Return the asset of an item that is its image.

    Args:
        item: A `pystac.Item`.
        wanted: Key or role of the asset; "" chooses "visual", else the only image that is neither
            a thumbnail nor an overview.

    Raises:
        UnreadableExample: There is none, or several.
    """
    images = {key: asset for key, asset in item.assets.items() if _is_image(asset)}
    if wanted in images:
        return images[wanted]
    if wanted:
        fitting = [asset for asset in images.values() if wanted in _roles(asset)]
    elif "visual" in images:
        return images["visual"]
    else:
        visual = [asset for asset in images.values() if "visual" in _roles(asset)]
        fitting = visual or [
            asset for key, asset in images.items() if not _SMALL & {key, *_roles(asset)}
        ]
    if not fitting:
        what = f"image asset {wanted[:40]!r}" if wanted else "image asset"
        raise UnreadableExample(f"item without {'an ' if not wanted else 'the '}{what}")
    if len(fitting) > 1:
        raise UnreadableExample("item with several image assets: choose one with --asset")
    return fitting[0]


def _roles(asset: Any) -> list[str]:
    return [role for role in asset.roles or () if isinstance(role, str)]


def _is_image(asset: Any) -> bool:
    kind = asset.media_type
    if isinstance(kind, str):
        return kind.partition(";")[0].strip().lower() in _IMAGES
    suffixes = tuple(suffix for group in _IMAGES.values() for suffix in group)
    return isinstance(asset.href, str) and asset.href.lower().endswith(suffixes)


def asset_member(found: StacItem, asset: Any) -> str:
    """Return the path of an asset in the folder or zip of its item.

    Raises:
        UnreadableExample: It is on a server, or outside the folder or zip.
    """
    href = asset.href if isinstance(asset.href, str) else ""
    return local_member(found.container, found.member, href, "asset")


def local_member(container: str, member: str, href: str, what: str = "file") -> str:
    """Return the path, in the same folder or zip, of what a JSON file refers to.

    Args:
        container: The folder or zip.
        member: Path of the JSON file in there.
        href: The reference, untrusted.
        what: What it refers to, for messages.

    Raises:
        UnreadableExample: It is on a server, or outside the folder or zip.
    """
    try:
        parts = urlsplit(href)
    except ValueError as error:
        raise UnreadableExample(f"{what} with an unreadable address") from error
    if parts.scheme not in ("", "file") or (parts.scheme and parts.netloc not in ("", "localhost")):
        raise UnreadableExample(f"{what} on a server: download it, with a relative address")
    path = unquote(parts.path) if parts.scheme else href
    if not path or "\0" in path:
        raise UnreadableExample(f"{what} with an unreadable address")
    base = os.path.realpath(container)
    if posixpath.isabs(path):
        path = os.path.relpath(path, base)
    else:
        path = posixpath.join(posixpath.dirname(member.replace(os.sep, "/")), path)
    found = posixpath.normpath(path.replace(os.sep, "/"))
    outside = found.startswith("../") or found in ("..", ".") or posixpath.isabs(found)
    if os.path.isdir(base) and not outside:
        target = os.path.realpath(os.path.join(base, found))
        outside = not target.startswith(base.rstrip(os.sep) + os.sep)
    if outside:
        raise UnreadableExample(f"{what} outside the folder or zip of its item")
    return found


def item_fields(item: Any, asset: Any) -> dict[str, Any]:
    """Return raw values of the fields as JSON; those of the asset come before those of the item."""
    properties = {**item.properties, **asset.extra_fields}
    raw = {ours: properties.get(theirs) for ours, theirs in _ITEM_FIELDS.items()}
    if raw["timestamp"] is None:
        raw["timestamp"] = properties.get("start_datetime")
    code = properties.get("proj:code") or f"EPSG:{properties.get('proj:epsg')}"
    if match := _ZONE.fullmatch(code if isinstance(code, str) else ""):
        raw["utm_zone"] = match[1]
    raw["location"] = _centre(item.bbox) or _centre(_bounds(item.geometry))
    raw["wavelengths"] = _wavelengths(properties.get("bands") or properties.get("eo:bands"))
    return {name: value for name, value in raw.items() if value is not None}


def with_file_fields(raw: Mapping[str, Any], of_file: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of an item and of its file; the file knows its place, and each tile's."""
    merged = {**of_file, **raw}
    for name in ("location", "utm_zone"):
        if name in of_file and not isinstance(of_file[name], Absent):
            merged[name] = of_file[name]
    return merged


def _centre(box: object) -> list[float] | None:
    """Return longitude and latitude of the centre of a box that may cross the 180th meridian."""
    if not isinstance(box, list) or len(box) not in (4, 6):
        return None
    west, south, east, north = box[0], box[1], box[len(box) // 2], box[len(box) // 2 + 1]
    if not all(isinstance(x, int | float) and abs(x) <= 360 for x in (west, south, east, north)):
        return None
    longitude = (west + east + (360 if west > east else 0)) / 2
    return [longitude - 360 if longitude > 180 else longitude, (south + north) / 2]


def _bounds(geometry: object) -> list[float] | None:
    """Return the box of a polygon's outer ring, or of a point."""
    coordinates = geometry.get("coordinates") if isinstance(geometry, dict) else None
    kind = geometry.get("type") if isinstance(geometry, dict) else None
    if kind == "Point":
        points = [coordinates]
    elif kind == "Polygon" and isinstance(coordinates, list) and coordinates:
        points = coordinates[0] if isinstance(coordinates[0], list) else []
    else:
        return None
    numbers = [point[:2] for point in points if isinstance(point, list) and len(point) >= 2]
    if not numbers or not all(isinstance(x, int | float) for point in numbers for x in point):
        return None
    xs, ys = [point[0] for point in numbers], [point[1] for point in numbers]
    if max(xs) - min(xs) > 180:
        xs = [x + 360 if x < 0 else x for x in xs]
    return [min(xs), min(ys), max(xs), max(ys)]


def _wavelengths(bands: object) -> list[float] | None:
    """Return the wavelengths of red, green and blue in nm, if the bands state all three."""
    found: dict[str, float] = {}
    for band in bands if isinstance(bands, list) else []:
        if isinstance(band, dict):
            # "eo:" since version 1.1 of STAC; micrometres
            name = band.get("eo:common_name", band.get("common_name"))
            centre = band.get("eo:center_wavelength", band.get("center_wavelength"))
            if isinstance(name, str) and isinstance(centre, int | float):
                found[name] = round(1000 * centre, 6)
    return [found[name] for name in _RGB] if all(name in found for name in _RGB) else None
