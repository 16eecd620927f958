"""The data of a run: which fields are known how often, and what preparing them came to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from satmip_jax.metadata.fields import FIELDS, select_fields
from satmip_jax.metadata.schema import Schema
from satmip_jax.prepare.report import REPORT_FILE
from satmip_jax.report.files import ReportError, read_object

MAX_REASONS = 10


@dataclass(frozen=True)
class FieldLine:
    """A metadata field in the train split.

    Attributes:
        count: examples that have it; `share` of all, None where the statistics are from elsewhere.
        used: whether the run's method takes it in or predicts it.
        missing: why it is missing, in all splits: (reason, examples).
    """

    name: str
    group: str
    unit: str
    count: int
    share: float | None
    used: bool
    missing: Sequence[tuple[str, int]] = ()


@dataclass(frozen=True)
class Data:
    """What the data hold.

    Attributes:
        prepared: sentences on the preparation; empty where its report is not there any more.
        reasons: (why an example is not stored, how many).
    """

    fields: Sequence[FieldLine]
    prepared: Sequence[str]
    reasons: Sequence[tuple[str, int]]


def describe(schema: Schema, selection: str, split: str, folder: Path | None) -> Data:
    """Of a schema and of the report that lies in the folder of the data, where there is one.

    Args:
        selection: of the fields that the run uses, see `select_fields`; "" for none.
        split: of which the schema holds the statistics.
    """
    report: dict[str, Any] = {}
    prepared: list[str] = []
    if folder is not None and (folder / REPORT_FILE).is_file():
        try:
            report = read_object(folder / REPORT_FILE)
            prepared = _sentences(report)
        except ReportError as error:
            prepared = [str(error)]
    problems = _mapping(report.get("problems"))
    used = {field.name for field in select_fields(selection)} if selection else set()
    total = schema.splits.get(split, 0)
    here = schema.provenance.get("statistics", "train") == "train"
    lines = [
        FieldLine(
            field.name,
            field.group,
            field.unit,
            schema.fields[field.name].count,
            min(schema.fields[field.name].count / total, 1.0) if total and here else None,
            field.name in used,
            _counts(problems.get(field.name)),
        )
        for field in FIELDS
    ]
    bad = report.get("bad")
    reasons: dict[str, int] = {}
    for entry in bad if isinstance(bad, list) else []:
        reason = str(_mapping(entry).get("reason", "no reason given"))
        reasons[reason] = reasons.get(reason, 0) + 1
    ranked = sorted(reasons.items(), key=lambda item: -item[1]) + _counts(report.get("skipped"))
    return Data(lines, prepared, ranked[:MAX_REASONS])


def _sentences(report: Mapping[str, Any]) -> list[str]:
    splits = _counts(report.get("splits"))
    stored = ", ".join(f"{count:,} {split}" for split, count in splits)
    bad = report.get("bad")
    left_out = len(bad) if isinstance(bad, list) else 0
    left_out += sum(count for _, count in _counts(report.get("skipped")))
    return [f"Stored: {stored or 'nothing'}.", f"Not stored: {left_out:,}."]


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _counts(value: object) -> list[tuple[str, int]]:
    """(name, count) pairs of a JSON object, without what is no count."""
    return [(name, n) for name, n in _mapping(value).items() if type(n) is int and n >= 0]
