"""The tidy table of a study, and the summary over the seeds that is printed."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from satmip_jax.evaluation.protocols import PROTOCOLS
from satmip_jax.evaluation.results import is_fraction
from satmip_jax.studies.base import Study, Summary

# Columns of every study, in this order; the study's own columns follow.
COLUMNS: dict[str, type] = {
    "study": str,
    "variant": str,
    "method": str,
    "seed": int,
    "images": int,
    "train_seconds": float,
    "dataset": str,
    "split": str,
    "model": str,
    "features": str,
    "protocol": str,
    "metric": str,
    "value": float,
    "n": int,
    "low": float,
    "high": float,
}
KEY = ("variant", "method", "dataset", "split", "model", "features", "protocol", "metric")
_ARROW = {str: pa.string(), int: pa.int64(), float: pa.float64()}


def to_arrow(study: Study, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Convert rows of scores to a table with fixed columns and types.

    Args:
        study: the study, for its own columns.
        rows: scores, column -> value; missing values become null.
    """
    types = COLUMNS | dict(study.columns)
    schema = pa.schema([(name, _ARROW[kind]) for name, kind in types.items()])
    return pa.Table.from_pylist([dict(row) for row in rows], schema=schema)


def write_csv(table: pa.Table, path: Path) -> None:
    """Write comma-separated values with a header; null becomes an empty cell."""
    pa.csv.write_csv(table, path, pa.csv.WriteOptions(quoting_header="none"))


def write_parquet(table: pa.Table, path: Path) -> None:
    """Write a Parquet file."""
    pa.parquet.write_table(table, path)


def summarize(study: Study, rows: Sequence[Mapping[str, Any]]) -> list[Summary]:
    """Group the rows of each score over the seeds, in the order of the rows."""
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    columns = (*KEY, *study.columns)
    for row in rows:
        groups.setdefault(tuple(row.get(name) for name in columns), []).append(row)
    return [
        Summary(
            cells=dict(zip(columns, key, strict=True)),
            values=tuple(row["value"] for row in group),
            images=_mean([row["images"] for row in group]),
            train_seconds=_mean([row["train_seconds"] for row in group]),
            low=group[0]["low"] if len(group) == 1 else None,
            high=group[0]["high"] if len(group) == 1 else None,
        )
        for key, group in groups.items()
    ]


def main_scores(study: Study, summaries: Sequence[Summary]) -> list[Summary]:
    """Return the scores that the printed table and the plot show, a part of results.csv."""
    selected = [s for s in summaries if s.cells["metric"] in study.metrics]
    main = {name for name, protocol in PROTOCOLS.items() if protocol.main}
    # "knn5 blocked 1deg" is made of "knn5"
    return [s for s in selected if s.cells["protocol"].split(" ")[0] in main] or selected


def print_summary(study: Study, summaries: Sequence[Summary], console: Console) -> None:
    """Print a line per variant, data set and kind of features, with a column per score."""
    shown = main_scores(study, summaries)
    scores = list(dict.fromkeys((s.cells["protocol"], s.cells["metric"]) for s in shown))
    lines: dict[tuple[str, str, str], dict[tuple[str, str], Summary]] = {}
    for s in shown:
        line = (s.cells["variant"], s.cells["dataset"], s.cells["features"])
        lines.setdefault(line, {})[s.cells["protocol"], s.cells["metric"]] = s
    labels = [_labels(*line, next(iter(by_score.values()))) for line, by_score in lines.items()]
    # no column for a constant, nor for the length of training if it is not an axis
    hidden = {"images", "train_seconds"} - {axis.column for axis in study.x}
    hidden |= {name for name in _LABELS if len({line[name] for line in labels}) == 1}
    hidden -= {"variant"} if study.measure else {"variant", "seeds"}
    names = [name for name in _LABELS if name not in hidden]

    metrics = {metric for _, metric in scores}
    title = study.title + (f": {_metric_label(*metrics)}" if len(metrics) == 1 else "")
    if any(s.std is not None for s in shown):
        title += "; mean ± sample standard deviation over the seeds"
    table = Table(title=title, box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name in names:
        number = name in ("images", "train_seconds", "seeds")
        head = "time" if name == "train_seconds" else name
        table.add_column(head, no_wrap=True, justify="right" if number else "left")
    for protocol, metric in scores:
        head = protocol.replace(" ", "\n").replace("-", "-\n")
        table.add_column(
            head if len(metrics) == 1 else _metric_label(metric), justify="right", overflow="fold"
        )
    previous: dict[str, str] = {}
    for facts, by_score in zip(labels, lines.values(), strict=True):
        new = facts["variant"] != previous.get("variant")
        cells = [facts[name] if new or name in ("data set", "features") else "" for name in names]
        cells += [_cell(by_score[key], key[1]) if key in by_score else "" for key in scores]
        table.add_row(*cells)
        previous = facts
    console.print(table)


_LABELS = ("variant", "data set", "features", "images", "train_seconds", "seeds")


def _labels(variant: str, dataset: str, features: str, summary: Summary) -> dict[str, str]:
    """Return the cells that identify a line of the printed table."""
    images, seconds = summary.images, summary.train_seconds
    values = (
        *map(escape, (variant, dataset, features)),
        f"{images:,.0f}" if images else "",
        f"{seconds:,.0f} s" if seconds else "",
        str(len(summary.values)),
    )
    return dict(zip(_LABELS, values, strict=True))


def _metric_label(metric: str) -> str:
    return metric.replace("_", " ") + (", %" if is_fraction(metric) else "")


def _cell(summary: Summary, metric: str) -> str:
    """Format a mean with its deviation, or its interval for one run of a metric in other units."""

    def number(value: float) -> str:
        if is_fraction(metric):
            return f"{100 * value:.1f}"
        return f"{value / 2**20:,.1f} MiB" if metric.endswith("_bytes") else f"{value:#.3g}"

    if summary.std is not None:
        return f"{number(summary.mean)} ± {number(summary.std)}"
    if is_fraction(metric) or summary.low is None or summary.high is None:
        return number(summary.mean)
    return f"{number(summary.mean)}\n({number(summary.low)}–{number(summary.high)})"


def _mean(values: Sequence[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return statistics.fmean(present) if present else None
