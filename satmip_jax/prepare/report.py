"""Result of a preparation: tables on screen, and JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from satmip_jax.data.rendering import DEFAULT, HIGHEST, LOWEST, Rendering
from satmip_jax.metadata.plausibility import PlausibilityCheck
from satmip_jax.metadata.record import Problems
from satmip_jax.prepare.shard_job import MIN_SIDE, Enlarged, Scaled
from satmip_jax.runtime.paths import AnyPath
from satmip_jax.sources.base import Source

REPORT_FILE = "prepare_report.json"
_HINTS = {
    "ambiguous date": "day or month first? If you know: prepare folder --dates day-first (or "
    "month-first)"
}
_CLASSES = 20  # names of classes shown
_SHOWN = 3  # bad examples shown on screen per reason; the file lists all


@dataclass(frozen=True)
class PrepareReport:
    """Result of a preparation; also saved as `prepare_report.json`.

    Attributes:
        name: Name of the data set.
        out: Folder of the result.
        splits: Split -> number of stored examples.
        bad: (split, id, reason) of each example that was listed but could not be used.
        skipped: Reason -> number of examples that the source left out.
        problems: Missing and converted fields of the stored examples, by reason.
        plausibility: Counts of stored examples whose fields contradict each other.
        statistics: Origin of the statistics: "train", or another prepared folder.
        resumed: Number of examples that an interrupted run had finished before.
        seconds: Duration of this run.
        reading: Sentences about how the data were read, see `describe`.
        notice: A sentence about an earlier run; "" if there is nothing to say.
        rendering: Bands and scale of the stored images.
        scaled: The images whose values were scaled to 8 bits.
        image_size: Side of the stored squares, pixels.
        enlarged: The images smaller than that.
    """

    name: str
    out: AnyPath
    splits: Mapping[str, int]
    bad: Sequence[tuple[str, str, str]]
    skipped: Mapping[str, int]
    problems: Problems
    plausibility: PlausibilityCheck
    statistics: str
    resumed: int
    seconds: float
    reading: Sequence[str] = ()
    notice: str = ""
    rendering: Rendering = DEFAULT
    scaled: Scaled = field(default_factory=Scaled)
    image_size: int = 0
    enlarged: Enlarged = field(default_factory=Enlarged)

    def bad_reasons(self) -> dict[str, int]:
        """Return reason -> number of bad examples, most frequent first."""
        return dict(Counter(reason for _, _, reason in self.bad).most_common())

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON."""
        return {
            "name": self.name,
            "splits": dict(self.splits),
            "bad": [dict(zip(("split", "id", "reason"), row, strict=True)) for row in self.bad],
            "skipped": dict(self.skipped),
            "problems": self.problems.to_json(),
            **self.problems.details_to_json(),
            "plausibility": self.plausibility.to_json(),
            "findings": [str(finding) for finding in self.plausibility.findings()],
            "statistics": self.statistics,
            "resumed": self.resumed,
            "seconds": round(self.seconds, 2),
            "reading": list(self.reading),
            "notice": self.notice,
            **self.rendering.to_json(),
            **({"scaled": asdict(self.scaled)} if self.scaled.count else {}),
            **({"enlarged": self.enlarged.to_json()} if self.enlarged.sides else {}),
        }

    def rules(self) -> list[str]:
        """Return a sentence for each rule of how images became squares of 8-bit RGB.

        These are the given bands and scale, and the size if most images are enlarged to it.
        """
        rules = []
        count, total = self.enlarged.sides.total(), sum(self.splits.values())
        if 2 * count > total:
            low, median, high = self.enlarged.describe()
            sizes = f"{low} px" if low == high else f"{low} to {high} px (median {median})"
            rules.append(
                f"{count:,} image{'' if count == 1 else 's'} of {sizes} "
                f"{'is' if count == 1 else 'are'} enlarged to {self.image_size}: "
                f"--image-size {max(median, MIN_SIDE)} "
                f"{'stores them as they are' if low == high else 'suits most of them'}"
            )
        if self.rendering.bands is not None:
            names = "red, green, blue" if len(self.rendering.bands) == 3 else "grey"
            rules.append(f"bands {','.join(map(str, self.rendering.bands))} are stored as {names}")
        if self.rendering.scale is not None and not self.scaled.count:
            rules.append("all images have 8-bit values: --scale was not needed")
        elif self.rendering.scale is not None:
            source = (
                f"the {LOWEST}nd to {HIGHEST}th percentile of each image"
                if isinstance(self.rendering.scale, str)
                else "{:g}..{:g}".format(*self.rendering.scale)
            )
            plural = "" if self.scaled.count == 1 else "s"
            rules.append(
                f"{self.scaled.count:,} image{plural} with values from {self.scaled.low:g} to "
                f"{self.scaled.high:g}: {source} became 0..255, values outside the nearest of these"
            )
        return rules

    def show(self, console: Any = None) -> None:
        """Print tables to a `rich.console.Console`, by default to standard output."""
        from rich.console import Console
        from rich.markup import escape
        from rich.table import Table

        console = console or Console()
        total = sum(self.splits.values())
        if self.notice:
            console.print(escape(self.notice))
        console.print(f"{escape(self.name)}: {total:,} examples in {escape(str(self.out))}")
        table = Table()
        table.add_column("split")
        table.add_column("stored", justify="right")
        table.add_column("bad", justify="right")
        bad = Counter(split for split, _, _ in self.bad)
        for split in sorted(self.splits.keys() | bad.keys()):
            table.add_row(escape(split), f"{self.splits.get(split, 0):,}", f"{bad[split]:,}")
        console.print(table)
        for rule in self.rules():
            console.print(escape(rule), highlight=False)

        if self.bad or self.skipped:
            console.print(f"not stored ({REPORT_FILE} lists each):")
            table = Table()
            table.add_column("reason")
            table.add_column("examples", justify="right")
            table.add_column("first ids")
            for reason, n in self.bad_reasons().items():
                ids = [_printable(i) for _, i, r in self.bad if r == reason][:_SHOWN]
                table.add_row(escape(_printable(reason)), f"{n:,}", escape(", ".join(ids)))
            for reason, n in self.skipped.items():
                table.add_row(escape(_printable(reason)), f"{n:,}", "")
            console.print(table)

        table = Table()
        table.add_column("field")
        table.add_column("reason")
        table.add_column("examples", justify="right")
        table.add_column("first values")
        for name, reason, n in self.problems.rows():
            values = ", ".join(self.problems.examples.get((name, reason), ()))
            table.add_row(escape(name), escape(reason), f"{n:,}", escape(values))
        if table.row_count:
            console.print("missing fields:")
            console.print(table)
        for reason, hint in _HINTS.items():
            if any(row[1] == reason for row in self.problems.rows()):
                console.print(f"{reason}: {hint}")

        for name, note, n in self.problems.note_rows():
            console.print(escape(f"{n:,} value{'' if n == 1 else 's'} of {name}: {note}"))
        for finding in self.plausibility.findings():
            console.print(escape(str(finding)))
        earlier = f" ({self.resumed:,} examples from an earlier run)" if self.resumed else ""
        console.print(f"{self.seconds:.1f} s{earlier}; statistics from {escape(self.statistics)}")


def describe(source: Source, no_labels: str = "no labels") -> list[str]:
    """Return sentences for users: the columns that a source reads, and its classes.

    Args:
        source: The data set.
        no_labels: The last line where there are no classes.
    """
    names = ", ".join(source.classes[:_CLASSES])
    more = f" and {len(source.classes) - _CLASSES:,} more" if source.classes[_CLASSES:] else ""
    classes = f"{len(source.classes):,} classes: {names}{more}" if source.classes else no_labels
    return [_printable(line) for line in (*source.summary, classes)]


def describe_for_training(source: Source) -> list[str]:
    """Return the sentences of `describe`, and what it means if there are no labels."""
    option = f" ({source.label_option})" if source.label_option else ""
    return describe(
        source,
        "no labels: images are stored without a class, which `satmip train` does not need and "
        f"`satmip evaluate` does{option}",
    )


def _printable(text: str) -> str:
    """Return text without control characters of a terminal: ids may be untrusted file names."""
    return "".join(c if c.isprintable() else "?" for c in text)
