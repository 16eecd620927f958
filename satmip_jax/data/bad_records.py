"""Records that cannot be read: logged, counted and replaced by other records, up to a limit.

A bad record must not end a run of days, nor go unnoticed. Training replaces it by an example that
is not in the same batch. The choice is a function of the batch alone. So every worker process and
loader makes the same one, and a resumed run sees the same batches as one that was never
interrupted. Evaluations leave bad records out.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable

import jax

from satmip_jax.errors import SatmipError
from satmip_jax.runtime.console import ALL_PROCESSES
from satmip_jax.runtime.files import read_json, write_atomically
from satmip_jax.runtime.paths import AnyPath

log = logging.getLogger(__name__)

BUDGET = 100

Reasons = list[tuple[int, str]]  # number of a record, and what is wrong with it


class BadRecordsError(SatmipError, ValueError):
    """More records than the budget allows cannot be read; the message lists them."""


def replace_rows(
    rows: Iterable[int],
    candidates: Callable[[int], Iterable[int]],
    usable: Callable[[int, int], bool],
) -> dict[int, int]:
    """Choose a record for each row whose own cannot be read, none twice.

    Args:
        rows: rows with a bad record.
        candidates: row -> records that may replace it, in turn.
        usable: (row, candidate) -> whether the candidate can be read.

    Returns:
        Row -> the record in its place. Rows for which there is none are left out.

    Example:
        >>> from satmip_jax.data.bad_records import replace_rows
        >>> replace_rows([0, 2], lambda row: [4, 5, 6], lambda row, candidate: candidate != 5)
        {0: 4, 2: 6}
    """
    chosen: dict[int, int] = {}
    for row in rows:
        for candidate in candidates(row):
            if candidate not in chosen.values() and usable(row, candidate):
                chosen[row] = candidate
                break
    return chosen


class BadRecords:
    """The bad records of one split, counted by a run or by one pass over the split.

    Args:
        split: name of the split.
        budget: number of bad records up to which the run continues.
        path: JSON file that keeps the list; records in it count already. None keeps no file.
        outcome: what becomes of a bad record, for the log.

    Example:
        >>> from satmip_jax.data.bad_records import BadRecords
        >>> bad_records = BadRecords("train", budget=100, path=Path("bad_records.json"))
        >>> bad_records.add([(3, "damaged JPEG")])
        >>> BadRecords("train", path=Path("bad_records.json")).reasons
        {3: 'damaged JPEG'}
    """

    def __init__(
        self,
        split: str,
        *,
        budget: int = BUDGET,
        path: AnyPath | None = None,
        outcome: str = "is replaced by another",
    ) -> None:
        self.split, self.budget, self.outcome = split, budget, outcome
        if path is not None and jax.process_index():  # each process reads other rows
            path = path.with_name(f"{path.stem}.{jax.process_index()}{path.suffix}")
        self.path = path
        self.reasons: dict[int, str] = _load(path, split) if path is not None else {}

    def add(self, records: Iterable[tuple[int, str]]) -> None:
        """Add bad records with their reasons; those that are counted already are ignored.

        Raises:
            BadRecordsError: there are more than the budget now.
        """
        new = {number: reason for number, reason in records if number not in self.reasons}
        if not new:
            return
        self.reasons |= new
        self._save()
        for number, reason in new.items():
            log.warning(
                f"{self.split} record {number} cannot be read and {self.outcome}: {reason}",
                extra=ALL_PROCESSES,
            )
        if len(self.reasons) > self.budget:
            raise BadRecordsError(
                f"{len(self.reasons)} records of {self.split} cannot be read, more than "
                f"config.data.bad_records={self.budget}:\n  "
                + "\n  ".join(f"{n}: {self.reasons[n]}" for n in [*self.reasons][:50])
                + ("\n  ..." if len(self.reasons) > 50 else "")
                + "\nCopy or prepare the data again, or raise config.data.bad_records"
                + (f" (delete {self.path} to start counting from 0)." if self.path else ".")
            )

    def _save(self) -> None:
        if self.path is None:
            return
        rows = [{"split": self.split, "record": n, "reason": r} for n, r in self.reasons.items()]
        try:
            write_atomically(self.path, json.dumps(rows, indent=1) + "\n")
        except OSError as error:
            log.warning(f"{self.path} could not be written: {error}", extra=ALL_PROCESSES)


def _load(path: AnyPath, split: str) -> dict[int, str]:
    try:
        rows = read_json(path)
        return {int(row["record"]): str(row["reason"]) for row in rows if row["split"] == split}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning(
            f"{path} cannot be read, so bad records are counted from 0: {error}",
            extra=ALL_PROCESSES,
        )
        return {}
