"""Files of a run or a study: untrusted, so they are read with a bound on their size."""

from __future__ import annotations

from typing import Any

from satmip_jax.errors import SatmipError
from satmip_jax.runtime.files import FileContentError, read_bounded, read_json_object
from satmip_jax.runtime.paths import AnyPath

MAX_BYTES = 64 << 20  # per file


class ReportError(SatmipError, ValueError):
    """A folder or a file that cannot be reported on; the message names it."""


def read_text(path: AnyPath) -> str:
    """Return the text of a UTF-8 file of at most `MAX_BYTES`.

    Raises:
        FileNotFoundError: the file is missing.
        ReportError: the file is too large, or not text.
    """
    try:
        return read_bounded(path, MAX_BYTES).decode("utf-8")
    except FileContentError as error:
        raise ReportError(str(error)) from None
    except UnicodeDecodeError as error:
        raise ReportError(f"{path} is not UTF-8 text: {error}") from None


def read_object(path: AnyPath) -> dict[str, Any]:
    """Return the JSON object in a file of at most `MAX_BYTES`.

    Raises:
        FileNotFoundError: the file is missing.
        ReportError: the file is too large, not JSON, or holds something else.
    """
    try:
        return read_json_object(path, max_bytes=MAX_BYTES)
    except FileContentError as error:
        raise ReportError(str(error)) from None


def as_text(value: object) -> str:
    """Return a string or a number as text, and "" for anything else.

    Example:
        >>> from satmip_jax.report.files import as_text
        >>> as_text(3), as_text([3])
        ('3', '')
    """
    return str(value)[:2000] if isinstance(value, str | int | float) else ""
