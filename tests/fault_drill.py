"""Fault drill: kill runs at random moments, damage files, and compare with an undisturbed run.

    python -m tests.fault_drill --kills 50 [--processes 2] [--seed 0] [--out FOLDER]
    python -m tests.fault_drill --kills 30 --workdir gs://bucket/run
    python -m tests.fault_drill --kills 10 --processes 2 --devices 2 --elastic

It starts `satmip prepare` and `satmip train` of a tiny config as real processes, ends them in every
phase that is visible from outside (output and files), damages the newest checkpoint now and then,
and repeats the same command until the run is done. Then the next run begins, until all kills are
used up. Each run must end with the state and the metrics of the undisturbed one, bit for bit. On an
idle machine with two cores a kill takes about 10 s.

With a workdir in a bucket the runs are in an emulator on the loopback interface, which refuses,
loses and tears some of their requests; the undisturbed run stays on the disk. The drill starts the
emulator (`tests.buckets`), unless STORAGE_EMULATOR_HOST names one.
"""

from __future__ import annotations

import json
import random
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import click
import numpy as np

from satmip_jax.checkpoints import integrity
from tests import drill_folders
from tests.buckets import environment
from tests.conftest import REPOSITORY, TINY
from tests.drill_folders import BucketFolder, Folder, LocalFolder
from tests.drill_run import PHASES, DrillError, Run

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
# Probability of each fault per request to the bucket.
RATES = {"503": 0.02, "no answer": 0.004, "answer lost": 0.004, "torn upload": 0.01}


class Drill:
    """A drill: its commands, its faults, and counts of their outcomes.

    Args:
        out: folder of data and outputs, and of the undisturbed run.
        processes: of each run.
        seed: of all random choices.
        workdir: folder of the disturbed runs, by default in `out`.
        devices: of each process.
        elastic: draw the processes and devices of each start, up to these numbers; losses are then
            compared to 1e-5, otherwise state and metrics bit for bit.
    """

    def __init__(
        self,
        out: Path,
        *,
        processes: int,
        seed: int,
        workdir: str = "",
        devices: int = 1,
        elastic: bool = False,
    ) -> None:
        self.out, self.processes, self.devices, self.elastic = out, processes, devices, elastic
        self.workdir = workdir or str(out)
        self.bucket = self.workdir.removeprefix("gs://").split("/")[0]
        self.server = ""  # URL of the emulator
        self.rates: dict[str, float] = {}
        self.seed, self.draw = seed, random.Random(seed)
        self.kills: Counter[tuple[str, str]] = Counter()  # (phase, how)
        self.damages: Counter[str] = Counter()
        self.outcomes: Counter[str] = Counter()
        self.injected: Counter[str] = Counter()  # faults of the store
        self.layouts: Counter[tuple[int, int]] = Counter()  # (processes, devices) of starts
        self.logs = 0
        self.latest: Run | None = None

    # --- commands ---------------------------------------------------------------------------------

    def start(
        self, *arguments: str, folder: Folder | None = None, count: int = 1, devices: int = 1
    ) -> Run:
        self.logs += 1
        command = [sys.executable, "-m", "satmip_jax.cli", *arguments]
        commands = [command]
        if count > 1:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                address = f"127.0.0.1:{free.getsockname()[1]}"
            flags = ["--coordinator", address, "--processes", str(count), "--heartbeat", "10"]
            commands = [[*command, *flags, "--process", str(i)] for i in range(count)]
        flag = f"--xla_force_host_platform_device_count={devices}"
        variables = {
            "XLA_FLAGS": flag if devices > 1 else "",
            "JAX_PLATFORMS": "cpu",
            "JAX_COMPILATION_CACHE_DIR": str(self.out / "cache"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
            "PYTHONUNBUFFERED": "1",
            "TMPDIR": str(self.out / "tmp"),  # killed processes leave files there
        }
        if self.server:
            variables |= environment(self.server)
        self.latest = Run(commands, self.out / f"{self.logs:03d}.log", folder, variables)
        return self.latest

    def prepare(self, name: str) -> Run:
        kind, *options = PREPARE
        scenes = str(self.out / "scenes")
        out = str(self.out / name)
        return self.start("prepare", kind, "--source", scenes, "--out", out, *options)

    def train(self, folder: Folder, *, elastic: bool = False) -> Run:
        """Start a training, on a number of processes and devices that is drawn if `elastic`."""
        count, devices = self.processes, self.devices
        if elastic:
            fitting = [n for n in (1, 2, 4, 8, 16) if n <= max(count, devices)]
            count = self.draw.choice([n for n in fitting if n <= count])
            devices = self.draw.choice([n for n in fitting if n <= devices])
        self.layouts[count, devices] += 1
        config = ["--config", str(REPOSITORY / "configs/eurosat.py:satmips,cpu")]
        data = f"--config.data.dir={self.out / 'shards'}"
        command = ["train", *config, "--workdir", str(folder), *TRAIN, data]
        return self.start(*command, folder=folder, count=count, devices=devices)

    def folder(self, number: int) -> Folder:
        """Return the workdir of a disturbed run."""
        name = f"run{number}"
        if not self.server:
            return LocalFolder(Path(self.workdir).resolve() / name)
        path = self.workdir.removeprefix(f"gs://{self.bucket}").strip("/")
        return BucketFolder(f"{path}/{name}".lstrip("/"), self.bucket, self.server)

    def must_end_well(self, run: Run) -> None:
        if any(run.finish()):
            raise DrillError(run.output())

    def ends_well(self, run: Run) -> bool:
        """Wait for a run; return False if it reports a fault of the store as the reason to end."""
        if not any(run.finish()):
            return True
        none_left = "\nsatmip: no checkpoint" in run.output()
        if not self.rates or none_left or "\nsatmip: " not in run.output():
            raise DrillError(run.output())
        self.outcomes["starts ended by a fault of the store, and resumed"] += 1
        message = run.output().rpartition("\nsatmip: ")[2].splitlines()[0]
        print(f"ended, and resumed: {message}", flush=True)
        return False

    # --- faults -----------------------------------------------------------------------------------

    def kill(self, run: Run, phase: str) -> str:
        """End a run in one of several ways; return which."""
        how = self.draw.choices(["kill -9", "SIGTERM", "SIGTERM twice"], [8, 1, 1])[0]
        if how == "kill -9":
            # one of several processes, or all. If it is one, the others must detect it and end by
            # themselves, which takes minutes before they have joined.
            count = len(run.processes)
            which = [None, *(range(count) if phase not in ("start", "restore") else ())]
            run.signal(signal.SIGKILL, self.draw.choice(which) if count > 1 else None)
            run.finish()
            return how
        run.signal(signal.SIGTERM)
        if how == "SIGTERM twice":
            time.sleep(self.draw.uniform(0.05, 1))
            run.signal(signal.SIGTERM)
        codes = run.finish()
        allowed = {0, 130, -signal.SIGTERM}
        if len(codes) == 1 and not self.rates and not allowed.issuperset(codes):
            raise DrillError(f"{how} ended with {codes}:\n{run.output()}")
        return how

    def damage(self, folder: Folder) -> str:
        """Damage a file of the newest checkpoint, if there is another one; return how and which."""
        steps = folder.steps()
        if len(steps) < 2:
            return ""
        file = self.draw.choice(folder.files_of(max(steps)))
        how = self.draw.choice(["missing", "torn", "bit flipped"])
        if how == "missing":
            folder.delete(file)
        else:
            data = bytearray(folder.read(file))
            if how == "torn":
                data = data[: self.draw.randrange(len(data))]
            else:
                data[self.draw.randrange(len(data))] ^= 1 << self.draw.randrange(8)
            folder.write(file, bytes(data))
        return f"{how}: {file}"

    # --- the drill --------------------------------------------------------------------------------

    def run(self, kills: int) -> None:
        (self.out / "tmp").mkdir(exist_ok=True)
        begun = time.monotonic()
        self.must_end_well(self.prepare("shards"))
        prepare_seconds = time.monotonic() - begun
        self.must_end_well(self.train(LocalFolder(self.out / "whole")))
        left = kills
        for _ in range(-(-kills // 10)):  # a tenth of them
            run = self.prepare("shards_cut")
            time.sleep(self.draw.uniform(0, prepare_seconds))
            run.end()
            self.kills["prepare", "kill -9"] += 1
            left -= 1
        self.must_end_well(self.prepare("shards_cut"))
        self.compare_prepared()
        with ExitStack() as stack:
            if self.workdir.startswith("gs://"):
                self.server = stack.enter_context(drill_folders.bucket_server(self.bucket))
                if drill_folders.inject(self.server, RATES, self.seed):
                    self.rates = RATES
            if self.rates:  # also if a run fails
                stack.callback(lambda: self.injected.update(drill_folders.injected(self.server)))
            number = 0
            while left > 0:
                number += 1
                left = self.one_run(self.folder(number), left)

    def one_run(self, folder: Folder, left: int) -> int:
        """Start a run until it is done, with at most `left` kills; return how many are left."""
        damaged = ""
        while True:
            run = self.train(folder, elastic=self.elastic)
            if left <= 0:
                if self.ends_well(run):
                    break
                continue
            phases = [p for p in PHASES if p != ("start" if run.before else "restore")]
            wanted = self.draw.choice(phases)
            if not run.wait_for(wanted, self.draw):
                if self.ends_well(run):
                    break
                continue
            phase = wanted if wanted in ("read back", "score") else run.phase()
            left -= 1
            self.kills[phase, self.kill(run, phase)] += 1
            if damaged and " M parameters" in run.output():
                self.note_damage(damaged, run)
                damaged = ""
            if not damaged and self.draw.random() < 0.4:
                damaged = self.damage(folder)
        if damaged:
            self.note_damage(damaged, run)
        self.compare(folder)
        if self.outcomes["differs"] == 0:
            folder.remove()
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

    def compare(self, folder: Folder) -> None:
        """Compare a run with the undisturbed one, leaf by leaf and row by row."""
        workdir, whole = folder.local_copy(self.out / "copy"), self.out / "whole"
        rows = [_rows(path) for path in (workdir, whole)]
        if self.elastic:
            different, same = _different_losses(*rows), "runs with equal losses to 1e-5"
        else:
            different, same = _different_leaves(workdir, whole), "runs identical bit for bit"
            different += [] if rows[0] == rows[1] else ["metrics.jsonl"]
        self.outcomes["differs" if different else same] += 1
        if different:
            print(f"{folder} differs in {', '.join(different[:10])}", flush=True)
        shutil.rmtree(self.out / "copy", ignore_errors=True)

    def table(self) -> str:
        lines = ["", f"{'phase':<12}{'kill -9':>10}{'SIGTERM':>10}{'SIGTERM twice':>16}"]
        for phase in ("prepare", *PHASES):
            row = [self.kills[phase, how] for how in ("kill -9", "SIGTERM", "SIGTERM twice")]
            lines.append(f"{phase:<12}{row[0]:>10}{row[1]:>10}{row[2]:>16}")
        total = sum(self.kills.values())
        lines += [f"{total} kills", "", "damaged checkpoints"]
        lines += [f"  {n:3} {what}" for what, n in sorted(self.damages.items())] or ["  none"]
        if self.rates:
            lines += ["faults of the store"]
            lines += [f"  {self.injected[what]:3} {what}" for what in RATES]
        if self.elastic:
            lines += ["starts"]
            lines += [f"  {n:3} on {p} x {d} devices" for (p, d), n in sorted(self.layouts.items())]
        lines += ["outcomes"] + [f"  {n:3} {what}" for what, n in sorted(self.outcomes.items())]
        return "\n".join(lines)


def _different_leaves(workdir: Path, whole: Path) -> list[str]:
    """Return the leaves of which the states after the last step differ, bit for bit."""
    mine, theirs = (path / "checkpoints" / str(STEPS) for path in (workdir, whole))
    records = [json.loads((f / "run" / "metadata").read_text())["leaves"] for f in (mine, theirs)]
    different = [name for name in records[1] if records[0].get(name) != records[1][name]]
    for name in records[1]:
        a, b = (integrity.open_leaf(f / "state", name).read().result() for f in (mine, theirs))
        if np.asarray(a).tobytes() != np.asarray(b).tobytes() and name not in different:
            different.append(name)
    return different


def _different_losses(mine: list[dict[str, float]], theirs: list[dict[str, float]]) -> list[str]:
    """Return the losses that differ by more than 1e-5, and rows that are missing or doubled."""
    if [row["step"] for row in mine] != [row["step"] for row in theirs]:
        return ["the steps of metrics.jsonl"]
    return [
        f"{name} of step {row['step']}"
        for row, other in zip(mine, theirs, strict=True)
        for name in other
        if name.endswith("loss") and not np.isclose(row[name], other[name], rtol=1e-5, atol=0)
    ]


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
@click.option(
    "--devices", default=1, show_default=True, type=click.IntRange(1), help="Of each process."
)
@click.option(
    "--elastic", is_flag=True, help="Draw both numbers for each start; losses agree to 1e-5."
)
@click.option("--seed", default=0, show_default=True, help="Seed of all random choices.")
@click.option("--workdir", help="Folder of the runs, local or gs://bucket/folder.  [default: OUT]")
@click.option("--out", help="Folder that keeps all files and outputs.  [default: a temporary one]")
def main(
    kills: int,
    processes: int,
    devices: int,
    elastic: bool,
    seed: int,
    workdir: str | None,
    out: str | None,
) -> None:
    folder = Path(out) if out else Path(tempfile.mkdtemp(prefix="fault_drill_"))
    folder.mkdir(parents=True, exist_ok=True)
    drill = Drill(
        folder.resolve(),
        processes=processes,
        seed=seed,
        workdir=workdir or "",
        devices=devices,
        elastic=elastic,
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        drill.run(kills)
    finally:
        if drill.latest is not None:
            drill.latest.end()
        print(drill.table())
    if drill.outcomes["differs"]:
        print(f"files and outputs: {folder}")
        sys.exit(1)
    if not out:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
