"""Result of `satmip embed`: sentences for users, and a list of what was left out."""

from __future__ import annotations

import csv
import io
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from satmip_jax.inference.embed.table import EmbeddingTable
from satmip_jax.metadata.record import Problems
from satmip_jax.runtime import stores
from satmip_jax.runtime.files import atomic_path
from satmip_jax.runtime.paths import AnyPath

SHOWN = 3  # names per reason


@dataclass(frozen=True)
class EmbedReport:
    """Result of `embed_files`.

    Attributes:
        out: the file.
        rows: number of its rows.
        image_width: numbers of an image vector.
        metadata_width: numbers of a metadata vector; 0 if the model does not embed metadata.
        described: number of rows with a metadata vector.
        model_fields: that the model takes in.
        fields: field -> number of rows that have it.
        left_out: reason -> number of inputs left out, and the first few names.
        left_out_file: CSV with the names of all of them that have one; None if there are none.
        problems: counts of metadata values that could not be used.
        resumed: number of inputs that an earlier run had finished.
        seconds: duration of this run.
    """

    out: AnyPath
    rows: int
    image_width: int
    metadata_width: int
    described: int
    model_fields: Sequence[str]
    fields: Mapping[str, int]
    left_out: Mapping[str, tuple[int, Sequence[str]]]
    left_out_file: AnyPath | None
    problems: Problems
    resumed: int
    seconds: float

    def lines(self) -> list[str]:
        """Return the result as sentences for users."""
        vectors = f"{self.image_width} numbers of the image"
        if self.metadata_width:
            if self.described:
                vectors += f" and {self.metadata_width} of the metadata"
            if not self.described:
                vectors += "; no row has a metadata vector"
            elif self.described < self.rows:
                vectors += f" (of {self.described:,})"
        lines = [f"{self.out}: {self.rows:,} rows, {vectors}"]
        if self.fields:
            shares = (f"{name} {n / self.rows:.0%}" for name, n in self.fields.items())
            takes = f"; the model takes in {', '.join(self.model_fields)}" * bool(self.model_fields)
            lines.append(f"fields: {', '.join(shares)}{takes}")
        for reason, (count, names) in self.left_out.items():
            listed = f" ({', '.join(names)}{', ...' if count > len(names) else ''})"
            lines.append(f"left out: {count:,} x {reason}{listed if names else ''}")
        if self.left_out_file:
            lines.append(f"{self.left_out_file} names them")
        for name, reason, count in self.problems.rows():
            if reason != "missing":
                values = ", ".join(self.problems.examples.get((name, reason), ()))
                lines.append(f"{name}: {count:,} x {reason}{f' ({values})' if values else ''}")
        earlier = f", {self.resumed:,} inputs from an earlier run" if self.resumed else ""
        lines.append(f"{self.seconds:.1f} s{earlier}")
        return ["".join(c if c.isprintable() else "?" for c in line) for line in lines]


@contextmanager
def list_left_out(out: AnyPath) -> Iterator[Callable[[str, str], None]]:
    """Yield a function that adds a name and a reason to the list of what was left out.

    Args:
        out: the file of embeddings; a list without lines is no file.
    """
    path = left_out_file(out)
    path.unlink(missing_ok=True)
    lines = 0
    with (
        atomic_path(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="replace") as file,
    ):
        rows = csv.writer(file)
        rows.writerow(["input", "reason"])

        def write(name: str, reason: str) -> None:
            nonlocal lines
            lines += 1
            rows.writerow([name, reason])

        yield write
    if not lines:
        path.unlink()


def left_out_file(out: AnyPath) -> AnyPath:
    """Return the path of the list of what was left out.

    Example:
        >>> from satmip_jax.inference.embed.report import left_out_file
        >>> left_out_file(Path("scenes.parquet")).name
        'scenes.left_out.csv'
    """
    return out.with_name(f"{out.stem}.left_out.csv")


def read_report(out: AnyPath, resumed: int, seconds: float) -> EmbedReport:
    """Return the report of a complete file.

    Args:
        out: the file.
        resumed: number of inputs that an earlier run had finished.
        seconds: duration of this run.
    """
    table = EmbeddingTable.open(out, copy=False)
    counts = table.info["inputs"]
    listed = left_out_file(out)
    reasons = Counter(counts["skipped"]) + Counter(counts["unusable"])
    names: dict[str, list[str]] = {}
    if listed.exists():
        with (
            stores.store_errors(listed),
            io.TextIOWrapper(listed.open("rb"), "utf-8", newline="") as file,
        ):
            for name, reason in itertools.islice(csv.reader(file), 1, None):
                known = names.setdefault(reason, [])
                if len(known) < SHOWN:
                    known.append(name)
    return EmbedReport(
        out=out,
        rows=table.count,
        image_width=table.image_width,
        metadata_width=table.metadata_width or 0,
        described=counts.get("described", table.count),  # files of 0.2.0 do not say it
        model_fields=table.info["fields"],
        fields=counts["fields"],
        left_out={r: (n, names.get(r, [])) for r, n in reasons.most_common()},
        left_out_file=listed if listed.exists() else None,
        problems=Problems.from_json(counts["problems"], counts["details"]),
        resumed=resumed,
        seconds=seconds,
    )
