"""Memory in pages of 2 MiB instead of 4 KiB, for what is computed on a CPU."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")
TUNABLES = "GLIBC_TUNABLES"  # the C library reads it when a process starts, and never again


def use() -> None:
    """Begin this process anew with huge pages, where Linux gives them to who asks.

    XLA takes the memory of a step on a CPU from the system and gives it back, step by step. In
    small pages a small ViT's step takes a third longer (docs/performance.md).

    The new beginning has the same process id, arguments and open files. It is for commands, before
    they do anything; a program that uses this library sets the variable itself. Where it is set
    already, to whatever, nothing is done: GLIBC_TUNABLES= in the environment forbids it.
    """
    try:
        on_request = "[madvise]" in SETTING.read_text()
    except OSError:  # not Linux
        return
    if on_request and TUNABLES not in os.environ:
        os.environ[TUNABLES] = "glibc.malloc.hugetlb=1"
        with contextlib.suppress(OSError):  # then in small pages
            os.execv(sys.executable, sys.orig_argv)
