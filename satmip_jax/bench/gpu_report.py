"""One report on whatever accelerator is at hand: speed, kernels, EuroSAT; resumable.

    python -m satmip_jax.bench.gpu_report [--minutes 12] [--tiny] [--data DIR] [--out DIR]

Every part of `gpu_plan.plan` is a process of its own with a time limit. Results are written as they
come: OUT/PART.jsonl and PART.log, OUT/parts/PART.json with card, versions and command, and
OUT/report.md, which is written anew after every part. This process never touches the device.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from satmip_jax.bench import gpu_tables
from satmip_jax.bench.gpu_plan import SECONDS, Part, plan
from satmip_jax.errors import INTERRUPTED, SatmipError
from satmip_jax.runtime.commands import LocalPath
from satmip_jax.runtime.environment import package_versions, processor
from satmip_jax.runtime.files import write_atomically

GRACE = 30.0  # seconds from SIGTERM to SIGKILL: a training saves first
RESERVED = 0.4  # share of the time for the trainings
PACKAGES = ("jax", "jaxlib", "jax-cuda12-plugin", "jax-cuda13-plugin", "torch", "timm")
QUERY = ("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader")


class Report:
    """The state of a report in a folder.

    Args:
        out: folder of the report.
        parts: its parts, in their order.
        seconds: time for this call.
    """

    def __init__(self, out: Path, parts: Sequence[Part], seconds: float) -> None:
        self.out, self.parts = out, parts
        self.start, self.seconds = time.monotonic(), seconds
        self.notes: dict[str, str] = {}  # part -> why it was not started by this call
        (out / "parts").mkdir(parents=True, exist_ok=True)

    def run(self) -> None:
        """Run the parts that have not finished, while there is time."""
        try:
            self._run_all()
        finally:  # also when it is interrupted
            self.write()

    def _run_all(self) -> None:
        for part in self.parts:
            if self.finished(part):
                click.echo(f"== {part.name}: finished before")
                continue
            if reason := part.missing():
                self.notes[part.name] = reason
            elif (left := self.left(part)) < part.least:
                self.notes[part.name] = f"{left:.0f} s left, it needs {part.least} s or more"
            else:
                self._run(part, min(left, part.limit))
            if part.name in self.notes:
                click.echo(f"== {part.name}: not started: {self.notes[part.name]}")
            self.write()

    def left(self, part: Part) -> float:
        """Return the seconds that a part may take, of the time of this call."""
        reserved = 0.0
        if not part.training and any(
            other.training and not other.missing() and not self.finished(other)
            for other in self.parts
        ):
            reserved = RESERVED * self.seconds
        return max(0.0, self.start + self.seconds - reserved - time.monotonic())

    def finished(self, part: Part) -> bool:
        """Whether this part has finished, with the same command."""
        record = self.record(part)
        return record.get("state") == "finished" and record.get("command") == part.shown

    def record(self, part: Part) -> dict[str, Any]:
        """Return what is known of the last start of a part."""
        path = self.out / "parts" / f"{part.name}.json"
        with suppress(OSError, ValueError):
            return dict(json.loads(path.read_text(encoding="utf-8")))
        return {}

    def _run(self, part: Part, limit: float) -> None:
        if not part.resumes:
            (self.out / f"{part.name}.jsonl").unlink(missing_ok=True)
        record: dict[str, Any] = {"part": part.name, "title": part.title, "state": "unfinished"}
        record |= {"reason": "interrupted", "command": part.shown, **device()}
        record["date"] = time.strftime("%Y-%m-%d %H:%M")
        self._save(record)  # in case that this process is killed
        click.echo(f"== {time.strftime('%H:%M:%S')} {part.name}, {limit:.0f} s: {part.shown}")
        begin = time.monotonic()
        reason = run_part(part, limit, self.out)
        record["seconds"] = time.monotonic() - begin
        record |= {"state": "unfinished" if reason else "finished", "reason": reason}
        self._save(record)
        click.echo(
            f"   {record['state']} after {record['seconds']:.0f} s{': ' * bool(reason)}{reason}"
        )

    def _save(self, record: Mapping[str, Any]) -> None:
        text = json.dumps(record, indent=1) + "\n"
        write_atomically(self.out / "parts" / f"{record['part']}.json", text)

    def write(self) -> None:
        """Write report.md."""
        records = []
        for part in self.parts:
            record = self.record(part) or {"part": part.name, "state": "not started"}
            if (note := self.notes.get(part.name)) and record["state"] == "not started":
                record["reason"] = note
            records.append({"command": part.shown, **record})
        rows = {
            part.name: gpu_tables.read_rows(self.out / f"{part.name}.jsonl") for part in self.parts
        }
        write_atomically(self.out / "report.md", gpu_tables.page(records, rows))


def run_part(part: Part, limit: float, out: Path) -> str:
    """Run a part with its output in OUT/PART.log; return why it did not finish, "" if it did.

    It is stopped at the limit, and when this process is interrupted: by SIGTERM, which lets a
    training save, and by SIGKILL some time later.
    """
    command = [sys.executable, *(word.replace(SECONDS, f"{limit:.0f}") for word in part.command)]
    variables = {
        "JAX_COMPILATION_CACHE_DIR": str(out.absolute() / "cache"),
        "PYTHONUNBUFFERED": "1",
        **os.environ,
        **dict(part.environment),
    }
    path = out / f"{part.name}.log"
    with path.open("w", encoding="utf-8") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env=variables, start_new_session=True
        )
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            return f"stopped at its limit of {limit:.0f} s"
        finally:
            _end(process)
    if code == 0:
        return ""
    lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines() or [""]
    return f"status {code}: {lines[-1].strip()[:200]}"


def _end(process: subprocess.Popen[bytes]) -> None:
    """Stop a process and all that it started, if they still run."""
    for number, patience in ((signal.SIGTERM, GRACE), (signal.SIGKILL, None)):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(patience)


def device() -> dict[str, str]:
    """Return card, driver and versions of packages, without touching the device."""
    card, driver = processor(), ""
    with suppress(OSError, subprocess.SubprocessError):
        listed = subprocess.run(QUERY, capture_output=True, text=True, check=True, timeout=30)
        cards = listed.stdout.strip().splitlines()
        name, _, driver = cards[0].rpartition(", ")
        card = f"{len(cards)} × {name}"
    versions = package_versions(PACKAGES)
    return {
        "card": card,
        "driver": driver,
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }


@click.command()
@click.option(
    "--minutes",
    type=click.FloatRange(0, min_open=True),
    default=12.0,
    show_default=True,
    help="Time for this call; the same command again continues with what is missing.",
)
@click.option("--tiny", is_flag=True, help="Tiny sizes, to try it on a CPU.")
@click.option(
    "--data",
    type=LocalPath(path_type=Path, file_okay=False),
    help="EuroSAT: a folder with its archives and CSV, or with prepared folders.",
)
@click.option(
    "--out",
    type=LocalPath(path_type=Path, file_okay=False),
    help="Folder of the report.  [default: runs/gpu_report, with --tiny runs/gpu_report_tiny]",
)
def main(minutes: float, tiny: bool, data: Path | None, out: Path | None) -> None:
    """Measure speed, kernels and EuroSAT on the accelerator at hand, the most valuable first."""
    out = out or Path("runs") / ("gpu_report_tiny" if tiny else "gpu_report")
    try:
        report = Report(out, plan(out, data, tiny=tiny), 60 * minutes)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        report.run()
    except KeyboardInterrupt:
        click.echo(f"interrupted. Finished parts in {out} are kept: the same command continues")
        raise SystemExit(INTERRUPTED) from None
    except SatmipError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{out / 'report.md'}")


if __name__ == "__main__":
    main()
