"""Meaning of a table's cells that depends on the rest of their column.

    "nan", "None", "N/A" ...    missing, in labels, splits and fields
    "none", "nil", "?", "."     missing in fields; labels may be called so
    "NA"                        missing, or Namibia in a column without three-letter country codes
    "48,1"                      48.1 in a column whose numbers all have decimal commas

Whatever is not read as it stands is counted and reported.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from satmip_jax.metadata.countries import country_code
from satmip_jax.metadata.fields import FIELDS
from satmip_jax.sources.columns import SPECIAL, Columns
from satmip_jax.sources.tables import Cell, Table

# Words that pandas, R, Excel and databases write for a missing value. R's "NA" is apart.
_WORDS = (
    "nan NaN NAN -nan -NaN <nan> None NULL Null null <null> <NULL> (null) (NULL) \\N "
    "N/A n/a N.A. n.a. #N/A #NA <NA> NaT - #NULL! #VALUE! #REF! #DIV/0! #NAME? #NUM! "
    "1.#IND -1.#IND 1.#QNAN -1.#QNAN"
)
MISSING = frozenset(_WORDS.split())
_OTHER_WORDS = "none NONE nil Nan -- ? ."  # which may be names of classes
MISSING_IN_FIELDS = MISSING.union(_OTHER_WORDS.split())
_KEPT = ("path", "id")  # names of things, whatever they look like
_NUMERIC = {f.name for f in FIELDS if not f.kind.stored_as_text}
_COMMA = re.compile(r"[+-]?[0-9]*,[0-9]+")
_WHOLE = re.compile(r"[+-]?[0-9]+")
_THOUSANDS = re.compile(r"[+-]?[1-9][0-9]{0,2}(,[0-9]{3})+")


@dataclass
class _Profile:
    """Counts over the texts of one column."""

    missing: Counter[str] = field(default_factory=Counter)
    na: int = 0
    has_long_codes: bool = False  # three-letter country codes
    commas: int = 0
    thousands: int = 0  # those of `commas` that may separate thousands
    other: bool = False  # numbers that are neither whole nor have a comma, or other texts

    def add(self, text: str, role: str) -> None:
        if text in _missing_words(role):
            self.missing[text] += 1
        elif text == "NA":
            self.na += 1
        elif role == "country_code":
            self.has_long_codes |= len(text) == 3 and country_code(text) is not None
        elif role in _NUMERIC:
            if "," in text and _COMMA.fullmatch(text):
                self.commas += 1
                self.thousands += _THOUSANDS.fullmatch(text) is not None
            elif not self.other and not _WHOLE.fullmatch(text):
                self.other = True

    def has_decimal_commas(self, delimiter: str) -> bool:
        """Whether every number has a decimal comma or is whole, so that no other reading fits."""
        if not self.commas or self.other or delimiter == ",":
            return False
        return delimiter != "" or self.thousands < self.commas


class CellReader:
    r"""Reads the cells of a table, by what all rows of their columns have in common.

    Args:
        table: The table; all its rows are read.
        columns: Columns of each role and field.

    Attributes:
        notices: Sentences for users about cells that are not read as they stand.

    Example:
        >>> from collections import Counter
        >>> from satmip_jax.sources.cells import CellReader
        >>> from satmip_jax.sources.tables import Table
        >>> _ = Path("t.csv").write_text("path;label;gsd\na.png;None;0,5\n")
        >>> columns = {"path": ("path",), "label": ("label",), "gsd": ("gsd",)}
        >>> cells = CellReader(Table(Path("t.csv")), columns)
        >>> list(cells.rows(Counter()))
        [{'path': 'a.png', 'label': None, 'gsd': '0.5'}]
        >>> cells.notices
        ["label: 1 x 'None' read as missing", 'gsd: decimal commas read (1 numbers)']
    """

    def __init__(self, table: Table, columns: Columns) -> None:
        self.table = table
        self.columns = columns
        profiles = {
            (ours, column): _Profile()
            for ours, theirs in columns.items()
            for column in theirs
            if ours not in _KEPT
        }
        selected = [column for _, column in profiles]
        adders = [(ours, column, profile.add) for (ours, column), profile in profiles.items()]
        for row in table.rows(selected, Counter()) if selected else ():
            for ours, column, add in adders:
                value = row[column]
                if type(value) is str:
                    add(value, ours)
        self._namibia = {
            key
            for key, profile in profiles.items()
            if key[0] == "country_code" and profile.na and not profile.has_long_codes
        }
        self._commas = {
            key for key, profile in profiles.items() if profile.has_decimal_commas(table.delimiter)
        }
        self.notices = list(self._notices(profiles))

    def rows(self, skipped: Counter[str], roles: tuple[str, ...] = ()) -> Iterator[dict[str, Cell]]:
        """Yield rows by our names; several columns as a list, or None if all are empty.

        Args:
            skipped: Counts the rows that cannot be parsed, by reason.
            roles: Our names to read; all by default.
        """
        wanted = {ours: self.columns[ours] for ours in roles or self.columns}
        for cells in self.table.rows([c for theirs in wanted.values() for c in theirs], skipped):
            row: dict[str, Cell] = {}
            for ours, theirs in wanted.items():
                if len(theirs) == 1:
                    row[ours] = self._value(ours, theirs[0], cells[theirs[0]])
                    continue
                values = [self._value(ours, column, cells[column]) for column in theirs]
                row[ours] = values if values != [None] * len(values) else None
            yield row

    def _value(self, ours: str, column: str, value: Cell) -> Cell:
        if type(value) is not str or ours in _KEPT:
            return value
        if value in _missing_words(ours) or (value == "NA" and (ours, column) not in self._namibia):
            return None
        if self._commas and (ours, column) in self._commas and _COMMA.fullmatch(value):
            return value.replace(",", ".")
        return value

    def _notices(self, profiles: Mapping[tuple[str, str], _Profile]) -> Iterator[str]:
        for (ours, column), profile in profiles.items():
            name = ours if len(self.columns[ours]) == 1 else f"{ours} ({column})"
            missing = profile.missing.copy()
            if profile.na and (ours, column) not in self._namibia:
                missing["NA"] = profile.na
            if missing:
                words = ", ".join(f"{n:,} x {word!r}" for word, n in missing.most_common())
                yield f"{name}: {words} read as missing"
            if (ours, column) in self._namibia:
                yield (
                    f"{name}: {profile.na:,} x 'NA' read as Namibia, as no row has a three-letter "
                    "code: if it means missing, leave the cells empty"
                )
            if (ours, column) in self._commas:
                yield f"{name}: decimal commas read ({profile.commas:,} numbers)"
            elif profile.commas:
                yield (
                    f"{name}: {profile.commas:,} numbers with a comma not read, as it may separate "
                    "thousands or is not in all numbers: write decimal points"
                )


def _missing_words(role: str) -> frozenset[str]:
    return MISSING if role in SPECIAL else MISSING_IN_FIELDS
