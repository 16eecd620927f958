"""Starts of a command in the fault drill, observed and ended from outside."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.conftest import REPOSITORY
from tests.drill_folders import Folder

PHASES = ("start", "restore", "compile", "step", "save", "read back", "score")
PATIENCE = 600.0  # seconds to wait for a phase, or for the end of a run


class DrillError(AssertionError):
    """A run failed; the message shows its output."""


@dataclass
class Run:
    """One start of a command, as one process or several, observed through output and files."""

    commands: list[list[str]]
    log: Path
    folder: Folder | None = None
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.before = self.steps()
        self.rows = self.row_count()
        with self.log.open("wb") as log:
            self.processes = [
                subprocess.Popen(
                    command,
                    env=os.environ | self.environment,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=REPOSITORY,
                    start_new_session=True,
                )
                for command in self.commands
            ]

    def steps(self) -> set[int]:
        """Return the steps of the complete checkpoints."""
        return self.folder.steps() if self.folder else set()

    def row_count(self) -> int:
        return self.folder.read("metrics.jsonl").count(b"\n") if self.folder else 0

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def phase(self) -> str:
        """Return what the run is doing, by its output and files."""
        assert self.folder is not None
        if " M parameters" not in self.output():
            return "restore" if self.before else "start"
        if self.folder.saving():
            return "save"
        if not self.folder.appends:  # rows appear at the next checkpoint
            return "step" if "loss=" in self.output() else "compile"
        rows = self.row_count()
        if rows == 0 or (self.before and rows <= self.rows and not self.steps() - self.before):
            return "compile"
        return "step"

    def wait_for(self, phase: str, draw: random.Random) -> bool:
        """Wait for `phase`, and a little longer; return False if the run ended before."""
        assert self.folder is not None
        begun = time.monotonic()
        steps_before = self.steps()
        while time.monotonic() < begun + PATIENCE:
            if self.ended():
                return False
            now = self.phase()
            new = bool(self.steps() - steps_before)
            if phase in ("start", "restore") and time.monotonic() > begun + draw.uniform(0.5, 8):
                return True
            if phase == now or (phase == "read back" and new):
                pause = 0.0 if phase in ("read back", "save") else draw.expovariate(2)
                time.sleep(min(pause, 3.0))
                return True
            if phase == "score" and "step 12:" not in self.output() and 12 in self.steps():
                return True
            if PHASES.index(now) > PHASES.index(phase) and phase in ("compile",):
                return True  # it was too short to be observed
            time.sleep(self.folder.poll)
        self.end()
        raise DrillError(f"no phase {phase!r} in {PATIENCE:.0f} s:\n{self.output()}")

    def ended(self) -> bool:
        return all(process.poll() is not None for process in self.processes)

    def signal(self, number: int, which: int | None = None) -> None:
        """Signal all processes, or one."""
        for i, process in enumerate(self.processes):
            if process.poll() is None and which in (None, i):
                os.killpg(process.pid, number)

    def end(self) -> None:
        self.signal(signal.SIGKILL)
        self.finish()

    def finish(self) -> list[int]:
        """Wait for the end; exit codes."""
        try:
            return [process.wait(timeout=PATIENCE) for process in self.processes]
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGKILL)
            raise DrillError(f"no end in {PATIENCE:.0f} s:\n{self.output()}") from None
