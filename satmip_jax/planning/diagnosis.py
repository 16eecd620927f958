"""The result of a dry run, and how it is shown."""

from __future__ import annotations

from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table


@dataclass
class Diagnosis:
    """Facts, problems and notes about a training that has not started.

    Attributes:
        facts: (topic, quantity, value) in the order of the table.
        problems: reasons why the training cannot run.
        notes: advice that a user may follow.
        numbers: some of the facts as numbers, by name; bytes are those of one device.
    """

    facts: list[tuple[str, str, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    numbers: dict[str, float] = field(default_factory=dict)

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
        for note in self.notes:
            console.print(f"note: {note}", markup=False)
        for problem in self.problems:
            console.print(f"error: {problem}", style="red", markup=False)
        if not self.problems:
            console.print("no problems found", style="green")
