"""A command begins anew with huge pages: as the same process, once, and only where it helps."""

import os
import subprocess
import sys

import pytest

from satmip_jax import huge_pages

PROGRAM = """
import os, sys
from pathlib import Path
from satmip_jax import huge_pages
huge_pages.SETTING = Path(sys.argv[1])
with open(sys.argv[2], "a") as beginnings:
    beginnings.write(f"{os.getpid()} {os.environ.get(huge_pages.TUNABLES)}\\n")
huge_pages.use()
print(os.getpid(), sys.argv[3])
"""


def begin(tmp_path, setting: str, **environment: str) -> tuple[list[str], str, int]:
    """What each beginning wrote, what the last one printed, and the process id."""
    (tmp_path / "enabled").write_text(setting)
    log = tmp_path / "beginnings"
    paths = [tmp_path / "enabled", log]
    clean = {name: value for name, value in os.environ.items() if name != huge_pages.TUNABLES}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *paths, "an argument"],
        env=clean | environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    printed = process.communicate()[0]
    assert process.returncode == 0
    return log.read_text().splitlines(), printed, process.pid


@pytest.mark.skipif(sys.platform == "win32", reason="no execv that keeps the process")
def test_the_process_begins_anew_once_as_itself(tmp_path):
    log, printed, pid = begin(tmp_path, "always [madvise] never")
    assert log == [f"{pid} None", f"{pid} glibc.malloc.hugetlb=1"]
    assert printed == f"{pid} an argument\n"


@pytest.mark.parametrize(
    ("setting", "environment"),
    [
        ("[always] madvise never", {}),
        ("always madvise [never]", {}),
        ("always [madvise] never", {"GLIBC_TUNABLES": ""}),
    ],
)
def test_otherwise_nothing_happens(tmp_path, setting, environment):
    log, printed, pid = begin(tmp_path, setting, **environment)
    assert len(log) == 1
    assert printed == f"{pid} an argument\n"
