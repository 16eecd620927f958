"""The result of a dry run, and how it is shown."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from satmip_jax.planning.forecast import Forecast
from satmip_jax.runtime.files import write_atomically


@dataclass
class Diagnosis:
    """Facts, problems and notes about a training that has not started.

    Attributes:
        facts: (topic, quantity, value) in the order of the table.
        problems: reasons why the training cannot run.
        notes: advice that a user may follow.
        numbers: some of the facts as numbers, by name; bytes are those of one device.
        tables: that follow the facts.
        mesh: sizes of its axes, their networks, and the rows (first, last) that each host reads.
        forecast: of the step on an accelerator that is not here; None if none was asked for, or if
            the training cannot be built.
    """

    facts: list[tuple[str, str, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    numbers: dict[str, float] = field(default_factory=dict)
    tables: list[Table] = field(default_factory=list)
    mesh: dict[str, Any] = field(default_factory=dict)
    forecast: Forecast | None = None

    def add(self, topic: str, quantity: str, value: str) -> None:
        """Append a fact."""
        self.facts.append((topic, quantity, value))

    def show(self, console: Console) -> None:
        """Print the facts as a table, then the notes and the problems."""
        table = Table("", "", "", show_header=False, box=None)
        previous = ""
        for topic, quantity, value in self.facts:
            table.add_row(f"[bold]{topic}[/bold]" if topic != previous else "", quantity, value)
            previous = topic
        console.print(table)
        for extra in self.tables:
            console.print()
            console.print(extra)
        for note in self.notes:
            console.print(f"note: {note}", markup=False)
        for problem in self.problems:
            console.print(f"error: {problem}", style="red", markup=False)
        if not self.problems:
            console.print("no problems found", style="green")

    def write(self, json_file: str | None, program_file: str | None) -> None:
        """Write the mesh and the forecast as JSON, and the compiled program as text.

        Args:
            json_file: file for the JSON, "-" for stdout; None for no JSON.
            program_file: file for the program; None for none. Without a program none is written.
        """
        if json_file:
            record = self.forecast.record() if self.forecast else {}
            record |= {"mesh": self.mesh, "notes": self.notes, "problems": self.problems}
            text = json.dumps(record, indent=2) + "\n"
            if json_file == "-":
                sys.stdout.write(text)
            else:
                write_atomically(Path(json_file), text)
        if program_file and self.forecast and self.forecast.is_compiled:
            write_atomically(Path(program_file), self.forecast.program)
