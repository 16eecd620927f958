"""Fault drill: kill runs at random moments, damage files, and compare with an undisturbed run.

    python -m tests.fault_drill --kills 50 [--processes 2] [--seed 0] [--out FOLDER]

It starts `satmip prepare` and `satmip train` of a tiny config as real processes, ends them in every
phase that is visible from outside (output and files), damages the newest checkpoint now and then,
and repeats the same command until the run is done. Then the next run begins, until all kills are
used up. Each run must end with the state and the metrics of the undisturbed one, bit for bit. On an
idle machine with two cores a kill takes about 10 s.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import click
import numpy as np

from satmip_jax.checkpoints import integrity
from tests.conftest import REPOSITORY, TINY

STEPS = 24
PREPARE = ("synthetic", "--train", "64", "--val", "16", "--size", "48", "--image-size", "32")
TRAIN = (
    *TINY,
    "--config.optimizer.images=384",  # STEPS x 16
    "--config.checkpoint.every=3",
    "--config.eval.every=12",
    "--config.data.in_memory=False",
    "--config.data.workers=0",
)
PHASES = ("start", "restore", "compile", "step", "save", "read back", "score")
PATIENCE = 600.0  # seconds to wait for a phase, or for the end of a run


class DrillError(AssertionError):
    """A run failed; the message shows its output."""


@dataclass
class Run:
    """One start of a command, as one process or several, observed through output and files."""

    commands: list[list[str]]
    log: Path
    workdir: Path | None = None
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
        folder = self.workdir / "checkpoints" if self.workdir else Path("/nowhere")
        return {int(p.name) for p in folder.glob("*") if p.name.isdigit()}

    def row_count(self) -> int:
        path = self.workdir / "metrics.jsonl" if self.workdir else Path("/nowhere")
        return path.read_bytes().count(b"\n") if path.is_file() else 0

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def phase(self) -> str:
        """Return what the run is doing, by its output and files."""
        assert self.workdir is not None
        if " M parameters" not in self.output():
            return "restore" if self.before else "start"
        if self.saving():
            return "save"
        rows = self.row_count()
        if rows == 0 or (self.before and rows <= self.rows and not self.steps() - self.before):
            return "compile"
        return "step"

    def saving(self) -> bool:
        assert self.workdir is not None
        return any(self.workdir.glob("checkpoints/*.orbax-checkpoint-tmp"))

    def wait_for(self, phase: str, draw: random.Random) -> bool:
        """Wait for `phase`, and a little longer; return False if the run ended before."""
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
            time.sleep(0.002)
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


class Drill:
    """A drill: its commands, its faults, and counts of their outcomes."""

    def __init__(self, out: Path, *, processes: int, seed: int) -> None:
        self.out, self.processes = out, processes
        self.draw = random.Random(seed)
        self.kills: Counter[tuple[str, str]] = Counter()  # (phase, how)
        self.damages: Counter[str] = Counter()
        self.outcomes: Counter[str] = Counter()
        self.logs = 0

    # --- commands ---------------------------------------------------------------------------------

    def start(self, *arguments: str, workdir: Path | None = None, count: int = 1) -> Run:
        self.logs += 1
        command = [sys.executable, "-m", "satmip_jax.cli", *arguments]
        commands = [command]
        if count > 1:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                address = f"127.0.0.1:{free.getsockname()[1]}"
            flags = ["--coordinator", address, "--processes", str(count), "--heartbeat", "10"]
            commands = [[*command, *flags, "--process", str(i)] for i in range(count)]
        environment = {
            "XLA_FLAGS": "",
            "JAX_PLATFORMS": "cpu",
            "JAX_COMPILATION_CACHE_DIR": str(self.out / "cache"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
            "PYTHONUNBUFFERED": "1",
        }
        return Run(commands, self.out / f"{self.logs:03d}.log", workdir, environment)

    def prepare(self, name: str) -> Run:
        kind, *options = PREPARE
        scenes = str(self.out / "scenes")
        out = str(self.out / name)
        return self.start("prepare", kind, "--source", scenes, "--out", out, *options)

    def train(self, workdir: Path) -> Run:
        config = ["--config", str(REPOSITORY / "configs/eurosat.py:satmips,cpu")]
        data = f"--config.data.dir={self.out / 'shards'}"
        where = ["--workdir", str(workdir)]
        return self.start(
            "train", *config, *where, *TRAIN, data, workdir=workdir, count=self.processes
        )

    def must_end_well(self, run: Run) -> None:
        if any(run.finish()):
            raise DrillError(run.output())

    # --- faults -----------------------------------------------------------------------------------

    def kill(self, run: Run, phase: str) -> str:
        """End a run in one of several ways; return which."""
        how = self.draw.choices(["kill -9", "SIGTERM", "SIGTERM twice"], [8, 1, 1])[0]
        if how == "kill -9":
            # one of several processes, or all. If it is one, the others must detect it and end by
            # themselves, which takes minutes before they have joined.
            which = [None, *(range(self.processes) if phase not in ("start", "restore") else ())]
            run.signal(signal.SIGKILL, self.draw.choice(which) if self.processes > 1 else None)
            run.finish()
            return how
        run.signal(signal.SIGTERM)
        if how == "SIGTERM twice":
            time.sleep(self.draw.uniform(0.05, 1))
            run.signal(signal.SIGTERM)
        codes = run.finish()
        allowed = {0, 130, -signal.SIGTERM}
        if self.processes == 1 and not allowed.issuperset(codes):
            raise DrillError(f"{how} ended with {codes}:\n{run.output()}")
        return how

    def damage(self, workdir: Path) -> str:
        """Damage a file of the newest checkpoint, if there is another one; return how and which."""
        steps = sorted(int(p.name) for p in workdir.glob("checkpoints/*") if p.name.isdigit())
        if len(steps) < 2:
            return ""
        folder = workdir / "checkpoints" / str(steps[-1])
        files = sorted(p for p in folder.rglob("*") if p.is_file() and p.stat().st_size)
        chosen = [p for p in files if "sharding" not in p.name and "commit" not in p.name]
        file = self.draw.choice(chosen)
        how = self.draw.choice(["missing", "torn", "bit flipped"])
        if how == "missing":
            file.unlink()
        else:
            data = bytearray(file.read_bytes())
            if how == "torn":
                data = data[: self.draw.randrange(len(data))]
            else:
                data[self.draw.randrange(len(data))] ^= 1 << self.draw.randrange(8)
            file.write_bytes(data)
        return f"{how}: {file.relative_to(workdir)}"

    # --- the drill --------------------------------------------------------------------------------

    def run(self, kills: int) -> None:
        begun = time.monotonic()
        self.must_end_well(self.prepare("shards"))
        prepare_seconds = time.monotonic() - begun
        self.must_end_well(self.train(self.out / "whole"))
        left = kills
        for _ in range(-(-kills // 10)):  # a tenth of them
            run = self.prepare("shards_cut")
            time.sleep(self.draw.uniform(0, prepare_seconds))
            run.end()
            self.kills["prepare", "kill -9"] += 1
            left -= 1
        self.must_end_well(self.prepare("shards_cut"))
        self.compare_prepared()
        number = 0
        while left > 0:
            number += 1
            left = self.one_run(self.out / f"run{number}", left)

    def one_run(self, workdir: Path, left: int) -> int:
        """Start a run until it is done, with at most `left` kills; return how many are left."""
        damaged = ""
        while True:
            run = self.train(workdir)
            if left <= 0:
                self.must_end_well(run)
                break
            phases = [p for p in PHASES if p != ("start" if run.before else "restore")]
            wanted = self.draw.choice(phases)
            if not run.wait_for(wanted, self.draw):
                self.must_end_well(run)
                break
            phase = wanted if wanted in ("read back", "score") else run.phase()
            left -= 1
            self.kills[phase, self.kill(run, phase)] += 1
            if damaged and " M parameters" in run.output():
                self.note_damage(damaged, run)
                damaged = ""
            if not damaged and self.draw.random() < 0.4:
                damaged = self.damage(workdir)
        if damaged:
            self.note_damage(damaged, run)
        self.compare(workdir)
        if self.outcomes["differs"] == 0:
            shutil.rmtree(workdir)
        return left

    def note_damage(self, damaged: str, run: Run) -> None:
        detected = "is damaged and" in run.output()
        outcome = "detected" if detected else "not detected"
        self.damages[f"{damaged.split(':')[0]}, {outcome}"] += 1
        if not detected:
            print(f"not detected (harmless if the result is the same): {damaged}", flush=True)

    def compare_prepared(self) -> None:
        one, other = (self.out / name for name in ("shards", "shards_cut"))
        files = [*sorted(p.name for p in one.glob("*.array_record*")), "schema.json"]
        same = all((one / name).read_bytes() == (other / name).read_bytes() for name in files)
        self.outcomes["shards identical" if same else "differs"] += 1

    def compare(self, workdir: Path) -> None:
        """Compare state and metrics with those of the undisturbed run, leaf by leaf, row by row."""
        mine, whole = (f / "checkpoints" / str(STEPS) for f in (workdir, self.out / "whole"))
        records = [
            json.loads((f / "run" / "metadata").read_text())["leaves"] for f in (mine, whole)
        ]
        different = [name for name in records[1] if records[0].get(name) != records[1][name]]
        for name in records[1]:
            a, b = (integrity.open_leaf(f / "state", name).read().result() for f in (mine, whole))
            if np.asarray(a).tobytes() != np.asarray(b).tobytes() and name not in different:
                different.append(name)
        rows = [_rows(folder) for folder in (workdir, self.out / "whole")]
        different += [] if rows[0] == rows[1] else ["metrics.jsonl"]
        self.outcomes["differs" if different else "runs identical bit for bit"] += 1
        if different:
            print(f"{workdir} differs in {', '.join(different[:10])}", flush=True)

    def table(self) -> str:
        lines = ["", f"{'phase':<12}{'kill -9':>10}{'SIGTERM':>10}{'SIGTERM twice':>16}"]
        for phase in ("prepare", *PHASES):
            row = [self.kills[phase, how] for how in ("kill -9", "SIGTERM", "SIGTERM twice")]
            lines.append(f"{phase:<12}{row[0]:>10}{row[1]:>10}{row[2]:>16}")
        total = sum(self.kills.values())
        lines += [f"{total} kills", "", "damaged checkpoints"]
        lines += [f"  {n:3} {what}" for what, n in sorted(self.damages.items())] or ["  none"]
        lines += ["outcomes"] + [f"  {n:3} {what}" for what, n in sorted(self.outcomes.items())]
        return "\n".join(lines)


def _rows(workdir: Path) -> list[dict[str, float]]:
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    return [
        {k: v for k, v in row.items() if k not in ("images_per_second", "time")} for row in rows
    ]


@click.command()
@click.option("--kills", default=50, show_default=True, type=click.IntRange(1))
@click.option(
    "--processes", default=1, show_default=True, type=click.IntRange(1), help="Processes per run."
)
@click.option("--seed", default=0, show_default=True, help="Seed of all random choices.")
@click.option("--out", help="Folder that keeps all files and outputs.  [default: a temporary one]")
def main(kills: int, processes: int, seed: int, out: str | None) -> None:
    folder = Path(out) if out else Path(tempfile.mkdtemp(prefix="fault_drill_"))
    folder.mkdir(parents=True, exist_ok=True)
    drill = Drill(folder.resolve(), processes=processes, seed=seed)
    try:
        drill.run(kills)
    finally:
        print(drill.table())
    if drill.outcomes["differs"]:
        print(f"files and outputs: {folder}")
        sys.exit(1)
    if not out:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
