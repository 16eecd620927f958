"""The section of a study: its plot, and its table over the seeds."""

from __future__ import annotations

import csv
import io
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from satmip_jax.evaluation.results import format_score
from satmip_jax.report.figures import Picture, data_uri
from satmip_jax.report.files import ReportError, as_text, read_object, read_text
from satmip_jax.report.hardware import hardware, versions
from satmip_jax.report.published import LABEL, published
from satmip_jax.report.section import Part, Section
from satmip_jax.runtime.paths import AnyPath

STUDY_FILE, TABLE_FILE, PLOT_FILE = "study.json", "results.csv", "plot.svg"
MAX_LINES = 300
REQUIRED = ("variant", "seed", "metric", "value")
LINE = ("variant", "dataset", "features")  # key of a line of the pivot table
# Columns of every study; all others are the study's own.
COMMON = (
    *("study", "method", "seed", "images", "train_seconds", "split", "model", "protocol"),
    *("metric", "value", "n", "low", "high"),
)


@dataclass(frozen=True)
class Pivot:
    """Scores over the seeds, with a line per variant, data set and kind of features.

    Attributes:
        head: names of the columns that identify a line.
        columns: (protocol, metric) of the score columns.
        lines: (cells of `head`, cells of `columns`), as text.
        left_out: number of lines beyond `MAX_LINES`.
    """

    head: Sequence[str]
    columns: Sequence[tuple[str, str]]
    lines: Sequence[tuple[Sequence[str], Sequence[str]]]
    left_out: int = 0


def read_study(folder: AnyPath) -> Section:
    """Read the section of a study; missing files are noted and left out.

    Args:
        folder: folder of `satmip study`.

    Raises:
        ReportError: a file that cannot be read; the message names it.
    """
    facts = read_object(folder / STUDY_FILE)
    parts, notes = [], []
    rows: list[dict[str, str]] = []
    if (folder / PLOT_FILE).is_file():
        title = as_text(facts.get("title")) or folder.name
        svg = read_text(folder / PLOT_FILE).encode("utf-8")
        picture = Picture(data_uri(svg, "image/svg+xml"), f"plot of the study: {title}")
        parts.append(Part("Plot", "plot", picture))
    else:
        notes.append(f"The folder of the study has no {PLOT_FILE}.")
    if (folder / TABLE_FILE).is_file():
        rows = read_table(folder / TABLE_FILE)
        parts.append(Part("Table", "pivot", pivot(rows)))
        names = dict.fromkeys(row.get("dataset", "") for row in rows)
        if tables := [(name, scores) for name in names if (scores := published(name))]:
            parts.append(Part("Published scores", "published", (LABEL, tables)))
    else:
        notes.append(f"The folder of the study has no {TABLE_FILE}.")
    if recipes := _recipes(facts.get("recipes")):
        parts.append(Part("Recipes", "recipes", recipes))
    left_out = [("skipped", *pair) for pair in _pairs(facts.get("skipped"))]
    failed = facts.get("failed")
    for entry in failed if isinstance(failed, list) else []:
        if isinstance(entry, dict):
            left_out.append(("failed", as_text(entry.get("variant")), as_text(entry.get("reason"))))
    listed = {row["variant"] for row in rows} | {name for _, name, _ in left_out}
    planned = facts.get("variants")
    for name in map(as_text, planned if isinstance(planned, list) else []):
        if name not in listed:
            left_out.append(("not run yet", name, ""))
    if left_out:
        parts.append(Part("Missing variants", "left_out", left_out))
    if isinstance(config := facts.get("config"), dict):
        text = json.dumps(config, indent=2, sort_keys=True)
        parts.append(Part("Configuration", "configuration", ([], text)))
    return Section(
        title=as_text(facts.get("title")) or folder.name,
        lead=as_text(facts.get("description")),
        facts=_facts(facts),
        parts=parts,
        notes=notes,
    )


def read_table(path: AnyPath) -> list[dict[str, str]]:
    """Read the lines of a `results.csv`.

    Args:
        path: the file.

    Raises:
        ReportError: the file is not the table of a study.
    """
    try:
        reader = csv.DictReader(io.StringIO(read_text(path)), strict=True)
        rows = [{k: v or "" for k, v in row.items() if k is not None} for row in reader]
    except csv.Error as error:
        raise ReportError(f"{path} is not a table of comma-separated values: {error}") from None
    for name in REQUIRED:
        if name not in (reader.fieldnames or ()):
            raise ReportError(f"{path} has no column {name!r}: it is not the table of a study")
    return rows


def pivot(rows: Sequence[Mapping[str, str]]) -> Pivot:
    """Summarize each score over the seeds.

    Args:
        rows: lines of a `results.csv`; those whose value is not a finite number are dropped.
    """
    columns: dict[tuple[str, str], None] = {}
    groups: dict[tuple[str, ...], list[Mapping[str, str]]] = {}
    for row in rows:
        if _number(row["value"]) is None:
            continue
        columns[row.get("protocol", ""), row["metric"]] = None
        groups.setdefault(tuple(row.get(name, "") for name in LINE), []).append(row)
    names = rows[0].keys() if rows else ()
    own_columns = [name for name in names if name not in (*COMMON, *LINE)]
    extra = [name for name in ("images", "train_seconds") if name in names] + own_columns
    lines = []
    for key, group in groups.items():
        seeds = len({row["seed"] for row in group})
        head = [*key, *(_over_seeds(group, name) for name in extra), str(seeds)]
        cells = [_score(group, protocol, metric) for protocol, metric in columns]
        lines.append((head, cells))
    head_names = [name.replace("_", " ") for name in (*LINE, *extra, "seeds")]
    filled = [
        i for i, name in enumerate(head_names) if name == "variant" or any(h[i] for h, _ in lines)
    ]
    return Pivot(
        [head_names[i] for i in filled],
        list(columns),
        [([head[i] for i in filled], cells) for head, cells in lines[:MAX_LINES]],
        max(len(lines) - MAX_LINES, 0),
    )


def _score(group: Sequence[Mapping[str, str]], protocol: str, metric: str) -> str:
    """Format the mean and the sample standard deviation of one score."""
    values = [
        float(row["value"])
        for row in group
        if row["metric"] == metric and row.get("protocol", "") == protocol
    ]
    if not values:
        return ""
    mean = _value(metric, statistics.fmean(values))
    return f"{mean} ± {_value(metric, statistics.stdev(values))}" if len(values) > 1 else mean


def _value(metric: str, value: float) -> str:
    if metric.endswith("_bytes"):
        return f"{value / 2**20:,.1f} MiB"
    return format_score(metric, value)


def _over_seeds(group: Sequence[Mapping[str, str]], name: str) -> str:
    """Format a column of a group: the value all lines share, or the mean of the numbers."""
    values = list(dict.fromkeys(row[name] for row in group if row.get(name)))
    numbers = [number for value in values if (number := _number(value)) is not None]
    if not values or len(numbers) < len(values):
        return ", ".join(values[:3]) + (", …" if len(values) > 3 else "")
    mean = statistics.fmean(numbers)
    if name.endswith("_bytes"):
        return _value(name, mean)
    if name.endswith("_seconds"):
        return f"{mean:,.0f} s" if mean else ""
    return f"{mean:,.0f}" if mean == int(mean) else f"{mean:,.4g}"


def _facts(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = [("study", as_text(facts.get("name")))]
    if isinstance(axis := facts.get("x_axis"), dict):
        rows.append(("x axis", as_text(axis.get("label"))))
    if isinstance(data := facts.get("data"), dict):
        rows.append(("scored on", ", ".join(data)))
    if isinstance(seeds := facts.get("seeds"), list):
        rows.append(("seeds", ", ".join(map(as_text, seeds))))
    machines = facts.get("machines")
    records = (
        [m for m in machines if isinstance(m, dict)] if isinstance(machines, list) else [facts]
    )
    for name, describe in (("hardware", hardware), ("versions", versions)):
        rows.append((name, "; ".join(dict.fromkeys(filter(None, map(describe, records))))))
    return [(name, value) for name, value in rows if value]


def _recipes(value: object) -> list[tuple[str, str]]:
    """Return (method, how its recipe differs from the configuration)."""
    pairs = value.items() if isinstance(value, dict) else ()
    return [(m, "; ".join(map(as_text, c))) for m, c in pairs if isinstance(c, list)]


def _pairs(value: object) -> list[tuple[str, str]]:
    """Return the (key, value) pairs of a JSON object as text."""
    return [(key, as_text(v)) for key, v in value.items()] if isinstance(value, dict) else []


def _number(cell: str) -> float | None:
    try:
        number = float(cell)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
