"""Locations as a table for the terminal, as JSON and as GeoJSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from satmip_jax.geolocation.estimate import DISC, format_place
from satmip_jax.geolocation.locate import ImageLocation

SHARE = 0.9  # of the probability, whose cells a GeoJSON file has
MAX_CELLS = 2000  # of an image in a GeoJSON file
WIDTH = 132  # columns of a table of scores in a log
MAX_TABLES = 20  # images shown on the terminal
_DECIMALS = 7


def print_locations(locations: Sequence[ImageLocation], console: Console | None = None) -> None:
    """Print a table of the likeliest places for each image, and what they were chosen from."""
    console = console or Console()
    for location in locations[:MAX_TABLES]:
        table = Table(title=escape(location.name), title_justify="left")
        for name in ("place", "country"):
            table.add_column(name)
        table.add_column(f"probability within {DISC:g} km", justify="right")
        for place in location.places:
            table.add_row(
                format_place(place.longitude, place.latitude),
                place.country,
                format_probability(place.probability),
            )
        console.print(table)
        console.print(_sentence(location), highlight=False)
        if location.differences:
            values = escape("; ".join(location.differences.values()))
            console.print(f"not calibrated for this image: {values}", highlight=False)
        for name, chosen in (("month", location.months), ("sensor", location.sensors)):
            if chosen:
                console.print(f"{name}: {escape(_choice(chosen))}", highlight=False)
        console.print()
    if (more := len(locations) - MAX_TABLES) > 0:
        console.print(f"and {more} more images: --json or --geojson writes all")
    if locations:
        console.print(f"chosen among {locations[0].search}", highlight=False)
        if scope := locations[0].search.scope:
            console.print(escape(str(scope)), highlight=False)


def format_probability(p: float) -> str:
    """Return a probability in percent.

    Example:
        >>> from satmip_jax.geolocation.output import format_probability
        >>> format_probability(0.314), format_probability(0.0004)
        ('31 %', '<1 %')
    """
    return f"{100 * p:.0f} %" if p >= 0.01 else "<1 %"


def _sentence(location: ImageLocation) -> str:
    near = ", ".join(f"{r} km: {format_probability(p)}" for r, p in location.within.items())
    radius = ", ".join(
        f"{100 * share:.0f} %: {km:,.0f} km" for share, km in location.radius.items()
    )
    return f"probability within a distance of the first place: {near}; radius that holds {radius}"


def _choice(chosen: dict[str, float]) -> str:
    best = sorted(chosen.items(), key=lambda item: -item[1])[:3]
    return ", ".join(f"{label} {format_probability(p)}" for label, p in best)


def to_json(location: ImageLocation) -> dict[str, Any]:
    """Return a location without its cells as plain JSON."""
    return {
        "image": location.name,
        "places": [
            {
                "longitude": place.longitude,
                "latitude": place.latitude,
                "country": place.country,
                "country_code": place.code or None,
                f"probability_within_{DISC:g}_km": place.probability,
            }
            for place in location.places
        ],
        "probability_within_km": {str(r): p for r, p in location.within.items()},
        "radius_km": {str(share): km for share, km in location.radius.items()},
        "months": location.months or None,
        "sensors": location.sensors or None,
        "stated_place": location.true_place,
        "prior": location.search.prior,
        "calibrated": location.calibrated,
        "calibrated_for": str(location.search.scope) if location.search.scope else None,
        "unlike_calibration": [f"{kind}: {value}" for kind, value in location.differences.items()],
        "region": location.search.grid.region,
        "cell_degrees": location.search.grid.cell,
    }


def to_geojson(locations: Sequence[ImageLocation]) -> dict[str, Any]:
    """Return locations as a FeatureCollection (RFC 7946).

    For each image a Point, the estimate, with the properties of `to_json`, and a Polygon for each
    of the likeliest cells, which together hold 90 % of the probability; at most 2,000 cells.
    """
    features: list[dict[str, Any]] = []
    for location in locations:
        properties = to_json(location)
        place = properties["places"][0]
        point = [place["longitude"], place["latitude"]]
        features.append(_feature("Point", point, {"kind": "estimate", **properties}))
        grid, p = location.search.grid, location.probabilities.astype(np.float64)
        order = np.argsort(-p, kind="stable")
        count = min(int(np.searchsorted(np.cumsum(p[order]), SHARE)) + 1, MAX_CELLS)
        for i in order[:count]:
            west, south, east, north = (round(x, _DECIMALS) for x in grid.corners(int(i)))
            ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
            cell = {"kind": "cell", "image": location.name, "probability": float(p[i])}
            features.append(_feature("Polygon", [ring], cell))
    return {"type": "FeatureCollection", "features": features}


def _feature(kind: str, coordinates: Any, properties: dict[str, Any]) -> dict[str, Any]:
    geometry = {"type": kind, "coordinates": coordinates}
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def print_scores(scores: Sequence[Mapping[str, Any]], console: Console | None = None) -> None:
    """Print the scores of a calibration: places, then months and sensors."""
    console = console or Console()
    if not console.is_terminal:  # a log: lines of any length
        console.width = max(console.width, WIDTH)
    places = [row for row in scores if "median km" in row]
    others = [row for row in scores if "median km" not in row]
    for title, rows in (("place", places), ("month and sensor", others)):
        if not rows:
            continue
        columns = [key for key in dict.fromkeys(k for row in rows for k in row) if key != "images"]
        images = max(row.get("images", 0) for row in rows)
        table = Table(title=f"{title}, {images:,} images", title_justify="left")
        for name in columns:
            if name == "method":
                table.add_column(name, overflow="fold", min_width=34)
            else:
                table.add_column(name.replace("within ", "≤ "), justify="right")
        for row in rows:
            table.add_row(*(_cell(name, row.get(name)) for name in columns))
        console.print(table)


def _cell(name: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return escape(value)
    if name == "median km":
        return f"{value:,.0f}"
    if name.startswith(("within", "accuracy")):
        return f"{100 * value:.1f} %"
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"
