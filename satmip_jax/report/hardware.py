"""Hardware and package versions of a run or a study; the records are untrusted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from satmip_jax.report.files import as_text


def hardware(record: Mapping[str, Any]) -> str:
    """Describe the devices in a record of `environment.environment`; "" if it has none.

    Example:
        >>> from satmip_jax.report.hardware import hardware
        >>> hardware({"device_kind": "cpu", "devices": 1, "processor": "Xeon", "cores": 2})
        '1 × cpu (Xeon, 2 cores)'
    """
    kind, count = as_text(record.get("device_kind")), as_text(record.get("devices"))
    if not kind or not count:
        return ""
    text = f"{count} × {kind}"
    processor, cores = as_text(record.get("processor")), as_text(record.get("cores"))
    if kind == "cpu" and processor and cores:
        text += f" ({processor}, {cores} cores)"
    processes = as_text(record.get("processes"))
    return f"{text}, {processes} processes" if processes not in ("", "1") else text


def versions(record: Mapping[str, Any]) -> str:
    """Describe the versions of Python and packages in such a record; "" if it has none.

    Example:
        >>> from satmip_jax.report.hardware import versions
        >>> versions({"versions": {"python": "3.11", "jax": "0.10.2"}})
        'python 3.11, jax 0.10.2'
    """
    recorded = record.get("versions")
    pairs = recorded.items() if isinstance(recorded, dict) else ()
    return ", ".join(f"{as_text(name)} {as_text(version)}" for name, version in pairs)


def history(starts: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Describe the hardware and versions of a run, with the step of each change.

    Args:
        starts: rows of environment.jsonl, one per start of the run.

    Returns:
        ("hardware", description) and ("versions", description).
    """
    rows = []
    for name, describe in (("hardware", hardware), ("versions", versions)):
        changes = [("", 0)] if not starts or starts[0]["step"] > 0 else []
        for start in starts:
            description = describe(start)
            if not changes or description != changes[-1][0]:
                changes.append((description, int(start["step"])))
        texts = [
            (description or "not recorded") + (f" from step {step:,}" if step else "")
            for description, step in changes
        ]
        rows.append((name, "; ".join(texts)))
    return rows
