"""A full disk and Ctrl-C: one sentence, no traceback, no process left; the same command resumes."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from array_record.python import array_record_module

from satmip_jax.prepare import shard_job
from satmip_jax.prepare.run import PrepareError
from tests.conftest import REPOSITORY
from tests.prepare.fake_source import contents, jpeg, make


def test_a_full_disk_is_explained_and_resumed(tmp_path, monkeypatch):
    make(tmp_path / "whole")
    out = tmp_path / "out"

    class Writer(array_record_module.ArrayRecordWriter):
        def close(self):
            super().close()
            if list(out.glob("made-*")):  # there is room for one
                raise RuntimeError("write() failed: No space left on device; writing x; at byte 9")

    with monkeypatch.context() as full:
        full.setattr(array_record_module, "ArrayRecordWriter", Writer)
        with pytest.raises(PrepareError) as raised:
            make(out)
    assert f"{out}/made-train.array_record-00001-of-00003: No space left on" in str(raised.value)
    assert "Finished shards are kept: make room, then the same command resumes" in str(raised.value)
    assert make(out).resumed > 0
    assert contents(out) == contents(tmp_path / "whole")


def test_a_disk_that_is_too_full_for_the_marks(tmp_path, monkeypatch):
    def write_json(path, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fspath(path))

    make(tmp_path / "whole")
    with monkeypatch.context() as full:
        full.setattr(shard_job, "write_json", write_json)
        with pytest.raises(PrepareError, match=r"No space left on device\. Finished shards are"):
            make(tmp_path / "out")
    make(tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


# Runs a command with SIGINT ignored, as a shell starts background jobs, or with its default.
RUN = """
import os, signal, sys
signal.signal(signal.SIGINT, getattr(signal, sys.argv[1]))
os.execv(sys.argv[2], sys.argv[2:])
"""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A EuroSAT of 3,000 images in three shards of up to 6 MB."""
    folder = tmp_path_factory.mktemp("pictures")
    data = [jpeg(i, 64, 64) for i in range(50)]
    rows = ["filename,label,split,longitude,latitude,country_code"]
    for i in range(3000):
        label = ("Forest", "River", "SeaLake")[i % 3]
        path = folder / "EuroSAT_RGB" / label / f"{label}_{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data[i % 50])
        rows.append(f"{label}/{path.name},{label},train,{i / 100},{i / 100},FRA")
    (folder / "meta.csv").write_text("\n".join(rows))
    return folder


def start(folder: Path, out: Path, ignore: bool = False) -> subprocess.Popen:
    """Run `satmip prepare` with two workers, in a process group of its own."""
    return subprocess.Popen(
        [
            *(sys.executable, "-c", RUN, "SIG_IGN" if ignore else "SIG_DFL"),
            *(sys.executable, "-m", "satmip_jax.cli", "prepare", "eurosat"),
            *("--source", folder, "--out", out, "--workers", "2"),
        ],
        env=os.environ | {"PYTHONPATH": os.fspath(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.slow
def test_a_real_disk_that_is_full(tmp_path, pictures):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", disk]
    try:
        refused = subprocess.run(mount, capture_output=True, check=False).returncode
    except FileNotFoundError:
        refused = 1
    if refused:
        pytest.skip("a file system cannot be mounted here")
    try:
        process = start(pictures, disk / "out")
        _, printed = process.communicate()
        assert process.returncode == 1, printed
        assert "No space left on device. Finished shards are kept: make room" in printed
        assert "Traceback" not in printed
    finally:
        subprocess.run(["umount", disk], check=False)


def group(pid: int) -> list[str]:
    """Return the running processes of a group."""
    running = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, pgrp = path.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(pgrp) == pid and state != "Z":
            running.append(path.parent.name)
    return running


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux to see processes")
@pytest.mark.parametrize("moment", ["workers start", "a shard is finished"])
def test_ctrl_c(tmp_path, pictures, moment):
    out = tmp_path / "out"
    process = start(pictures, out)
    pattern = "plan.json" if moment == "workers start" else "*-of-*.json"
    deadline = time.monotonic() + 120
    while not list((out / ".prepare").glob(pattern)) and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    if moment == "workers start":
        while len(group(process.pid)) < 3 and time.monotonic() < deadline:
            time.sleep(0.005)
    os.killpg(process.pid, signal.SIGINT)
    _, printed = process.communicate(timeout=300)
    assert process.returncode == 130, printed
    assert f"Finished shards in {out} are kept: the same command resumes" in printed
    assert "Traceback" not in printed
    deadline = time.monotonic() + 60
    while group(process.pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not group(process.pid), "workers were left behind"


@pytest.mark.slow
def test_a_background_job_ignores_ctrl_c_with_its_workers(tmp_path, pictures):
    out = tmp_path / "out"
    process = start(pictures, out, ignore=True)
    deadline = time.monotonic() + 120
    while not list((out / ".prepare").glob("plan.json")) and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    while process.poll() is None and time.monotonic() < deadline:
        os.killpg(process.pid, signal.SIGINT)  # at any moment of its workers' lives
        time.sleep(0.1)
    printed = "".join(process.communicate(timeout=300))
    assert process.returncode == 0, printed
    assert json.loads((out / "schema.json").read_text())["splits"] == {"train": 3000}
