"""Roles of a table's columns: which one holds the paths, the labels and each metadata field."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path

from satmip_jax.metadata.fields import FIELDS, field
from satmip_jax.sources.archives import nfc
from satmip_jax.sources.base import SourceError

SPECIAL = ("path", "label", "split", "id")  # roles of a column besides the metadata fields
LONGITUDES = ("longitude", "lon", "lng", "long")
LATITUDES = ("latitude", "lat")
PLANE = ("x", "y")  # degrees in some tables, pixels in others

# Usual columns of each role and field: the first that the table has.
_USUAL: dict[str, tuple[tuple[str, ...], ...]] = {
    "path": tuple(
        (name,)
        for name in (
            "path",
            "file_name",
            "filename",
            "file",
            "image",
            "file_path",
            "filepath",
            "image_path",
            "image_name",
            "image_file",
            "img_path",
            "img",
        )
    ),
    "label": (("label",), ("class",), ("class_name",), ("category",)),
    "split": (("split",),),
    "location": (
        ("location",),
        ("longitude", "latitude"),
        ("lon", "lat"),
        *product(LONGITUDES, LATITUDES),
        PLANE,
        ("geometry",),  # of GeoJSON
    ),
    **{f.name: ((f.name,),) for f in FIELDS if f.name != "location"},
}

Columns = dict[str, tuple[str, ...]]  # our name -> the column, or one per component


def find_column(name: str, header: Sequence[str]) -> str | None:
    """Return the column of that name, exactly or without case and outer spaces; None without one.

    Spaces, hyphens and underscores within a name are equal.

    Raises:
        SourceError: Several columns differ from the name in this way only.

    Example:
        >>> from satmip_jax.sources.columns import find_column
        >>> find_column("label", ["File", " Label"])
        ' Label'
        >>> find_column("class_name", ["File", "Class Name"])
        'Class Name'
    """
    if name in header:
        return name
    fitting = list(dict.fromkeys(column for column in header if _plain(column) == _plain(name)))
    if len(fitting) > 1:
        raise SourceError(
            f"the columns {', '.join(map(repr, fitting))} differ in case, spaces and underscores "
            "only: rename all but one"
        )
    return fitting[0] if fitting else None


def parse_columns(
    text: str | Mapping[str, str | Sequence[str]], header: Sequence[str] = ()
) -> dict[str, tuple[str, ...]]:
    """Parse "path=file,location=lon+lat".

    Args:
        text: The text, or a mapping of our names to columns.
        header: Columns of the table; one of their names may contain "+".

    Returns:
        Our name -> columns; () to ignore a column of that name.

    Raises:
        SourceError: The text cannot be parsed.

    Example:
        >>> from satmip_jax.sources.columns import parse_columns
        >>> parse_columns("path=file,location=lon+lat,gsd=")
        {'path': ('file',), 'location': ('lon', 'lat'), 'gsd': ()}
    """
    if isinstance(text, str):
        parts = [part.partition("=") for part in text.split(",") if part.strip()]
        for ours, equals, _ in parts:
            if not equals:
                raise SourceError(
                    f"--columns: cannot read {ours.strip()!r}: write field=column, as in path=file"
                )
        pairs = [(ours.strip(), theirs.strip()) for ours, _, theirs in parts]
        if len(dict(pairs)) < len(pairs):
            twice = Counter(ours for ours, _ in pairs).most_common(1)[0][0]
            raise SourceError(f"--columns: {twice!r} is given twice")
        text = dict(pairs)
    out: dict[str, tuple[str, ...]] = {}
    for ours, theirs in text.items():
        if not isinstance(theirs, str):
            out[ours] = tuple(theirs)
        elif find_column(theirs, header) is not None:  # a name that contains "+"
            out[ours] = (theirs,)
        else:
            out[ours] = tuple(name.strip() for name in theirs.split("+")) if theirs else ()
    return out


def match_columns(
    text: str | Mapping[str, str | Sequence[str]], header: Sequence[str], table: Path
) -> Columns:
    """Check the columns in `text`, and add those of the table that have usual names.

    Args:
        text: See `parse_columns`.
        header: Columns of the table.
        table: Path of the table, for messages.

    Raises:
        SourceError: A column or field does not exist, a field has a wrong number of columns, the
            names of a location's columns are in the order latitude, longitude, or no column holds
            the paths.

    Example:
        >>> from satmip_jax.sources.columns import match_columns
        >>> match_columns("path=tile", ["tile", "Lon", "Lat", "gsd"], Path("metadata.csv"))
        {'path': ('tile',), 'location': ('Lon', 'Lat'), 'gsd': ('gsd',)}
    """
    names: Columns = {}
    for ours, theirs in parse_columns(text, header).items():
        size = 1
        if ours not in SPECIAL:
            try:
                size = field(ours).kind.components
            except ValueError as error:
                raise SourceError(f"--columns: {error}; also {', '.join(SPECIAL)}") from None
        columns = tuple(find_column(name, header) for name in theirs)
        for name, column in zip(theirs, columns, strict=True):
            if column is None:
                raise SourceError(
                    f"--columns: {table} has no column {name!r} for {ours}; it has "
                    f"{_listed(header) or 'none'}"
                )
        if len(theirs) not in (0, 1, size):
            expected = f"1 column or {size}" if size > 1 else "1 column"
            raise SourceError(f"--columns: {ours} takes {expected}, not {len(theirs)}")
        names[ours] = tuple(column for column in columns if column is not None)
    _check_order(names.get("location", ()))
    for ours, choices in _USUAL.items():
        if ours in names:
            continue
        for choice in choices:
            columns = tuple(find_column(name, header) for name in choice)
            if None not in columns:
                names[ours] = tuple(column for column in columns if column is not None)
                break
    if not names.get("path"):
        raise SourceError(
            f'{table}: no column of image paths: choose one with --columns "path=..."; '
            f"the table has {_listed(header) or 'no columns'}"
        )
    return {ours: theirs for ours, theirs in names.items() if theirs}


def describe_columns(columns: Columns, header: Sequence[str]) -> list[str]:
    """Return sentences for users: the columns that are read, and those that are ignored."""
    pairs = (f"{ours} <- {' + '.join(theirs)}" for ours, theirs in columns.items())
    used = {name for theirs in columns.values() for name in theirs}
    ignored = [name for name in header if name not in used]
    return [f"columns: {', '.join(pairs)}", f"ignored columns: {_listed(ignored) or 'none'}"]


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", "_", nfc(name).strip().casefold())


def _listed(header: Sequence[str]) -> str:
    more = f" and {len(header) - 50} more" if len(header) > 50 else ""
    return ", ".join(name[:64] for name in header[:50]) + more


def _check_order(columns: Sequence[str]) -> None:
    """Reject a location whose columns are called latitude and longitude, in this order."""
    words = [_words(column) for column in columns]
    latitude = [bool(names & {*LATITUDES, PLANE[1]}) for names in words]
    longitude = [bool(names & {*LONGITUDES, PLANE[0]}) for names in words]
    if len(columns) == 2:
        right = (longitude[0] and not latitude[0]) or (latitude[1] and not longitude[1])
        wrong = (latitude[0] and not longitude[0]) or (longitude[1] and not latitude[1])
        if wrong and not right:
            first, second = columns
            raise SourceError(
                f"--columns location={first}+{second}: the order is longitude, latitude: write "
                f"location={second}+{first}"
            )
    if len(columns) == 1 and re.match(r"\W*lat.*lo?n", _plain(columns[0])):
        raise SourceError(
            f"--columns location={columns[0]}: its name says latitude, longitude; a location is "
            "longitude, latitude: write two columns, and location=longitude+latitude"
        )


def _words(name: str) -> set[str]:
    """Return the words of a column's name: {"centre", "lat"} of "centre_lat" or "centreLat"."""
    return {word.casefold() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)}
