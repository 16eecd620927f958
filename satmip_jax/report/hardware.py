"""What a run or a study was computed on, in words; the records may be a stranger's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from satmip_jax.report.files import as_text


def hardware(record: Mapping[str, Any]) -> str:
    """Devices, of `environment.environment`; "" where it does not tell.

    Example:
        >>> hardware({"device_kind": "cpu", "devices": 1, "processor": "Xeon", "cores": 2})
        '1 × cpu (Xeon, 2 cores)'
    """
    kind, count = as_text(record.get("device_kind")), as_text(record.get("devices"))
    if not kind or not count:
        return ""
    said = f"{count} × {kind}"
    processor, cores = as_text(record.get("processor")), as_text(record.get("cores"))
    if kind == "cpu" and processor and cores:
        said += f" ({processor}, {cores} cores)"
    processes = as_text(record.get("processes"))
    return f"{said}, {processes} processes" if processes not in ("", "1") else said


def versions(record: Mapping[str, Any]) -> str:
    """Python and the packages, of the same; "" where it does not tell."""
    known = record.get("versions")
    pairs = known.items() if isinstance(known, dict) else ()
    return ", ".join(f"{as_text(name)} {as_text(version)}" for name, version in pairs)


def history(starts: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """("hardware", ...) and ("versions", ...) of a run, with the step of each change."""
    rows = []
    for name, describe in (("hardware", hardware), ("versions", versions)):
        changes = [("", 0)] if not starts or starts[0]["step"] > 0 else []
        for start in starts:
            said = describe(start)
            if not changes or said != changes[-1][0]:
                changes.append((said, int(start["step"])))
        said_once = [
            (said or "not recorded") + (f" from step {step:,}" if step else "")
            for said, step in changes
        ]
        rows.append((name, "; ".join(said_once)))
    return rows
