"""The data of a run: coverage of the metadata fields, and the outcome of the preparation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from satmip_jax.metadata.fields import FIELDS
from satmip_jax.metadata.schema import Schema
from satmip_jax.prepare.report import REPORT_FILE
from satmip_jax.report.files import ReportError, read_object
from satmip_jax.runtime.paths import AnyPath

MAX_REASONS = 10
MAX_SENTENCE = 400  # characters of a finding of the preparation


@dataclass(frozen=True)
class FieldCoverage:
    """Coverage of a metadata field in the train split.

    Attributes:
        name: name of the field.
        group: its group, such as "Angles".
        unit: unit of its values.
        count: number of examples with a value.
        share: fraction of examples with a value; None if the statistics come from other data.
        used: whether the run's method uses the field.
        missing: reasons for missing values, in all splits: (reason, number of examples).
    """

    name: str
    group: str
    unit: str
    count: int
    share: float | None
    used: bool
    missing: Sequence[tuple[str, int]] = ()


@dataclass(frozen=True)
class DataReport:
    """Content of the data.

    Attributes:
        fields: coverage of each metadata field.
        summary: sentences on the preparation; empty if its report is gone.
        skip_reasons: reasons why examples were skipped: (reason, number of examples).
    """

    fields: Sequence[FieldCoverage]
    summary: Sequence[str]
    skip_reasons: Sequence[tuple[str, int]]


def data_report(schema: Schema, selection: str, split: str, folder: AnyPath | None) -> DataReport:
    """Describe data by their schema and by the report of their preparation.

    Args:
        schema: schema of the data.
        selection: metadata fields that the run uses, see `Schema.select_fields`; "" for none.
        split: the train split, whose statistics the schema holds.
        folder: prepared folder, with or without a preparation report; None if it is remote.
    """
    report: dict[str, Any] = {}
    summary: list[str] = []
    if folder is not None and (folder / REPORT_FILE).is_file():
        try:
            report = read_object(folder / REPORT_FILE)
            summary = _sentences(report)
        except ReportError as error:
            summary = [str(error)]
    problems = _mapping(report.get("problems"))
    used = {field.name for field in schema.select_fields(selection)} if selection else set()
    total = schema.splits.get(split, 0)
    own_statistics = schema.provenance.get("statistics", "train") == "train"
    lines = [
        FieldCoverage(
            field.name,
            field.group,
            field.unit,
            schema.fields[field.name].count,
            min(schema.fields[field.name].count / total, 1.0) if total and own_statistics else None,
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
    return DataReport(lines, summary, ranked[:MAX_REASONS])


def _sentences(report: Mapping[str, Any]) -> list[str]:
    splits = _counts(report.get("splits"))
    stored = ", ".join(f"{count:,} {split}" for split, count in splits)
    bad = report.get("bad")
    skipped = len(bad) if isinstance(bad, list) else 0
    skipped += sum(count for _, count in _counts(report.get("skipped")))
    findings = report.get("findings")
    contradictions = [
        f"{text[:MAX_SENTENCE]}."
        for text in (findings if isinstance(findings, list) else [])[:3]
        if isinstance(text, str)
    ]
    return [f"Stored: {stored or 'nothing'}.", f"Skipped: {skipped:,}.", *contradictions]


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _counts(value: object) -> list[tuple[str, int]]:
    """Return the (name, count) pairs of a JSON object; values that are not counts are dropped."""
    return [(name, n) for name, n in _mapping(value).items() if type(n) is int and n >= 0]
