"""What came out of a preparation: for people on screen, for programs as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from satmip_jax.metadata.record import Problems

REPORT_FILE = "prepare_report.json"
_SHOWN = 3  # bad examples named on screen for each reason; the file names all


@dataclass(frozen=True)
class PrepareReport:
    """What came out of a preparation; also in `prepare_report.json`.

    Attributes:
      name: Of the data set.
      out: The folder.
      splits: Split -> number of examples stored.
      bad: (split, id, reason) of each example that was listed but could not be used.
      skipped: Reason -> number of examples that the source did not list.
      problems: Fields that became missing, by reason, over all stored examples.
      statistics: Where the statistics are from: "train", or another prepared folder.
      resumed: How many examples an earlier, interrupted run had done.
      seconds: Duration of this run.
    """

    name: str
    out: Path
    splits: Mapping[str, int]
    bad: Sequence[tuple[str, str, str]]
    skipped: Mapping[str, int]
    problems: Problems
    statistics: str
    resumed: int
    seconds: float

    def bad_reasons(self) -> dict[str, int]:
        """Reason -> number of bad examples, most frequent first."""
        return dict(Counter(reason for _, _, reason in self.bad).most_common())

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "name": self.name,
            "splits": dict(self.splits),
            "bad": [dict(zip(("split", "id", "reason"), row, strict=True)) for row in self.bad],
            "skipped": dict(self.skipped),
            "problems": self.problems.to_json(),
            "statistics": self.statistics,
            "resumed": self.resumed,
            "seconds": round(self.seconds, 2),
        }

    def show(self, console: Any = None) -> None:
        """Prints tables to a `rich.console.Console`, standard output by default."""
        from rich.console import Console
        from rich.markup import escape
        from rich.table import Table

        console = console or Console()
        total = sum(self.splits.values())
        console.print(f"{escape(self.name)}: {total:,} examples in {escape(str(self.out))}")
        table = Table()
        table.add_column("split")
        table.add_column("stored", justify="right")
        table.add_column("bad", justify="right")
        bad = Counter(split for split, _, _ in self.bad)
        for split in sorted(self.splits.keys() | bad.keys()):
            table.add_row(escape(split), f"{self.splits.get(split, 0):,}", f"{bad[split]:,}")
        console.print(table)

        if self.bad or self.skipped:
            console.print(f"not stored ({REPORT_FILE} names each):")
            table = Table()
            table.add_column("reason")
            table.add_column("examples", justify="right")
            table.add_column("such as")
            for reason, n in self.bad_reasons().items():
                ids = [_plain(i) for _, i, r in self.bad if r == reason][:_SHOWN]
                table.add_row(escape(_plain(reason)), f"{n:,}", escape(", ".join(ids)))
            for reason, n in self.skipped.items():
                table.add_row(escape(_plain(reason)), f"{n:,}", "")
            console.print(table)

        table = Table()
        table.add_column("field")
        table.add_column("reason")
        table.add_column("examples", justify="right")
        for name, reason, n in self.problems.rows():
            table.add_row(escape(name), escape(reason), f"{n:,}")
        if table.row_count:
            console.print("fields that are missing:")
            console.print(table)
        again = f" ({self.resumed:,} done by an earlier run)" if self.resumed else ""
        console.print(f"{self.seconds:.1f} s{again}; statistics from {escape(self.statistics)}")


def _plain(text: str) -> str:
    """Without what could command a terminal: ids of bad examples come straight from file names."""
    return "".join(c if c.isprintable() else "?" for c in text)
