"""Files of a run or a study, which somebody else may have written: read with a bound on size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from satmip_jax.errors import SatmipError

MAX_BYTES = 64 << 20  # of one file


class ReportError(SatmipError, ValueError):
    """A folder or a file that no page can be made of; the message names it."""


def read_text(path: Path) -> str:
    """The text of a file of at most `MAX_BYTES`, UTF-8.

    Raises:
        FileNotFoundError: there is none.
        ReportError: too large, or not text.
    """
    if (size := path.stat().st_size) > MAX_BYTES:
        raise ReportError(f"{path} has {size:,} bytes: a report reads at most {MAX_BYTES:,}")
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise ReportError(f"{path} is not UTF-8 text: {error}") from None


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        FileNotFoundError: there is none.
        ReportError: too large, not JSON, or not an object.
    """
    try:
        data = json.loads(read_text(path))
    except ReportError:
        raise
    except (ValueError, RecursionError) as error:
        raise ReportError(f"{path} is not JSON: {error}") from None
    if not isinstance(data, dict):
        raise ReportError(f"{path} holds a {type(data).__name__}: expected an object")
    return data


def as_text(value: object) -> str:
    """A string or a number as text, anything else as nothing."""
    return str(value)[:2000] if isinstance(value, str | int | float) else ""
