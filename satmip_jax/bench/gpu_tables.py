"""The markdown page of the report on a GPU."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Rows = list[dict[str, Any]]
BOUNDS = ("lower bound of step time", "XLA's estimate of step time")  # of `satmip bench step`
RATIO = "step time / "  # and the reference; OF_BOUND: and the bound
OF_BOUND = "step time / that"


def read_rows(path: Path) -> Rows:
    """Return the rows of a JSON Lines file, without a last line that was cut off."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            rows.append(json.loads(line))
        except ValueError:  # the process was killed
            continue
    return rows


def page(records: Sequence[Mapping[str, Any]], results: Mapping[str, Rows]) -> str:
    """Return the page.

    Args:
        records: one per part: part, title, state, and where it ran card, driver, versions, date,
            seconds and command.
        results: part -> its rows.
    """
    lines = ["# Report on an accelerator", ""]
    lines += _table(
        ["part", "state", "card", "driver", "versions", "date", "s", "command"],
        [
            [
                record["part"],
                record["state"] + (f": {record['reason']}" if record.get("reason") else ""),
                *(record.get(key, "") for key in ("card", "driver", "versions", "date")),
                f"{record['seconds']:.0f}" if "seconds" in record else "",
                f"`{record['command']}`",
            ]
            for record in records
        ],
    )
    steps = {part: rows for part, rows in results.items() if part.startswith("step-") and rows}
    if steps:
        lines += ["## Training step", "", *_steps(steps)]
    for part in ("loss", "augment", "knn"):
        if rows := results.get(part):
            lines += [f"## {part}", "", *_plain(rows)]
    if rows := results.get("kernels"):
        lines += ["## Kernels of a step", ""]
        lines += _table(
            ["kernel", "calls/step", "ms/step", "share, %"],
            [[r["variant"], f"{r['calls']:g}", f"{r['value']:.4g}", r["share"]] for r in rows],
        )
    if rows := results.get("eurosat"):
        lines += ["## EuroSAT, in-domain: mean and deviation over seeds", "", *_scores(rows)]
    return "\n".join(lines)


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    cells = [[str(cell).replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    rule = ["---"] * len(header)
    return [*("| " + " | ".join(row) + " |" for row in [list(header), rule, *cells]), ""]


def _steps(results: Mapping[str, Rows]) -> list[str]:
    """Return the table of steps; the bound of MFU is that of a step as short as the bound."""
    table = []
    for part, rows in results.items():
        variants = dict.fromkeys(row["variant"] for row in rows if row["metric"] == "step time")
        for variant in variants:
            own = {row["metric"]: row for row in rows if row["variant"] == variant}
            time = own["step time"]
            bound = next((own[name]["value"] for name in BOUNDS if name in own), None)
            mfu = own["MFU"]["value"] if "MFU" in own else None
            limit = mfu * time["value"] / bound if mfu is not None and bound else None
            table.append(
                [
                    part,
                    variant,
                    time.get("encoder", ""),
                    time.get("batch", ""),
                    _span(time, 1e3),
                    "" if bound is None else f"{1e3 * bound:.4g}",
                    _value(own.get("view throughput")),
                    _value(own.get("model FLOP/s")),
                    "" if mfu is None else f"{mfu:.1f}",
                    "" if limit is None else f"{limit:.1f}",
                    _value(own.get("compiled memory")),
                    next((_span(own[m]) for m in own if m.startswith(RATIO) and m != OF_BOUND), ""),
                    _span(own["host overhead"]) if "host overhead" in own else "",
                    time["device"],
                ]
            )
    header = ["part", "step", "encoder", "batch", "ms", "bound, ms", "views/s", "TFLOP/s"]
    header += ["MFU, %", "bound of MFU, %", "MiB", "time / first", "host, ms", "device"]
    return _table(header, table)


def _plain(rows: Rows) -> list[str]:
    standard = {"bench", "variant", "metric", "value", "unit", "low", "high", "rounds"}
    standard |= {"device", "devices", "jax", "python", "satmip_jax"}
    return _table(
        ["variant", "with", "metric", "median (lowest to highest)", "unit"],
        [
            [
                row["variant"],
                ", ".join(f"{key} {value}" for key, value in row.items() if key not in standard),
                row["metric"],
                _span(row),
                row["unit"],
            ]
            for row in rows
        ],
    )


def _scores(rows: Rows) -> list[str]:
    groups: dict[tuple[Any, ...], list[float]] = {}
    keys = ("encoder", "split", "scored", "epochs", "variant", "metric", "unit")
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row["value"])
    table = []
    for group, values in groups.items():
        deviation = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
        table.append([*group[:-1], f"{statistics.fmean(values):.4g}{deviation}", group[-1]])
        table[-1].append(len(values))
    header = ["encoder", "split", "scored on", "epochs", "method", "metric", "value", "unit"]
    return _table([*header, "seeds"], table)


def _value(row: Mapping[str, Any] | None) -> str:
    return "" if row is None else f"{row['value']:,.4g}"


def _span(row: Mapping[str, Any], factor: float = 1.0) -> str:
    text = f"{factor * row['value']:.4g}"
    if row.get("rounds", 1) > 1:
        text += f" ({factor * row['low']:.4g} to {factor * row['high']:.4g})"
    return text
