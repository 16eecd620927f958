"""Runs of several processes, one on each host, which are started with the same command.

`start` joins them before the devices are used. Under a launcher that JAX knows (Cloud TPU, SLURM,
Open MPI, Kubernetes) it needs no arguments; elsewhere it takes the flags of `satmip train`. After
that JAX's heartbeats end every process soon after another one died. They abort the process from
C++, where Python cannot print anything, so an `ExitMessage` explains it. jax and numpy are imported
in functions, because `satmip --help` does not need them.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress

from satmip_jax.errors import SatmipError

HEARTBEAT = 60  # seconds of silence after which a process counts as dead
JOIN_TIMEOUT = 300  # seconds between the start of the first process and of the last


class ProcessError(SatmipError, RuntimeError):
    """The processes of a run cannot work together; the message says why and what to do."""


def start(
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
    *,
    heartbeat: int = HEARTBEAT,
) -> None:
    """Join the other processes of this run, if there are any.

    Call it once, before the devices are used. On two hosts without a launcher call
    `start("10.0.0.1:8476", processes=2, process=0)` on the first, which has this address, and the
    same with `process=1` on the second.

    Args:
        coordinator: HOST:PORT at which process 0 listens. Without these three arguments JAX finds
            the processes itself if a launcher started them.
        processes: number of processes; 1 runs alone, whatever the launcher says.
        process: number of this process, from 0.
        heartbeat: seconds of silence after which another process counts as dead.

    Raises:
        ProcessError: the flags are incomplete, or the launcher's processes cannot be found.
    """
    flags = (coordinator, processes, process)
    has_flags = any(flag is not None for flag in flags)
    if has_flags and processes != 1:
        _check_flags(*flags)
    launcher = None if has_flags else find_launcher(os.environ)
    if processes == 1 or launcher == "none":
        return

    import jax

    message = ExitMessage()
    if has_flags or launcher:
        which = f"{process} of {processes} at {coordinator}" if has_flags else f"of {launcher}"
        message.set(
            f"process {which} on {socket.gethostname()} did not reach the others within "
            f"{JOIN_TIMEOUT} s. Start the same command on every host, and make sure that all of "
            "them can reach the first one (firewall, proxy variables of the environment)."
        )
    try:
        jax.distributed.initialize(
            coordinator,
            processes,
            process,
            # detection would give each process only one of its host's devices
            cluster_detection_method="deactivate" if has_flags else None,
            initialization_timeout=JOIN_TIMEOUT,
            heartbeat_timeout_seconds=heartbeat,
        )
    except ValueError as error:
        message.set("")
        if has_flags or "coordinator_address" not in str(error):
            raise
        if launcher:
            raise ProcessError(
                f"{launcher} started several processes, but JAX cannot find them ({error}). "
                "Give --coordinator HOST:PORT --processes N --process I, or --processes 1 if this "
                "process runs alone. In Kubernetes `pip install jax[k8s]` may help too."
            ) from error
        return  # no launcher that JAX knows: a single machine
    # JAX takes SIGTERM as a preemption notice; until training handles it, it must end the process
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if jax.process_count() == 1:
        message.set("")
        return
    message.set(
        f"process {jax.process_index()} of {jax.process_count()} on {socket.gethostname()} was "
        f"aborted. Either it was killed (out of memory? preempted?), or another process died or "
        f"was silent for {heartbeat} s: see JAX's lines above. All other processes end within "
        f"about {heartbeat} s too. Start the same command on all hosts again: the run resumes "
        "from the newest checkpoint."
    )
    global _exit_message
    _exit_message = message


def find_launcher(environment: Mapping[str, str]) -> str | None:
    """Return the name of the launcher that started several processes, by its variables.

    Args:
        environment: environment variables.

    Returns:
        "SLURM", "Open MPI" or "Kubernetes"; "none" if the launcher started a single process, where
        JAX's own detection would fail or use one device only; None if only JAX can tell, on a
        Cloud TPU or a single machine.

    Example:
        >>> from satmip_jax.distributed.multihost import find_launcher
        >>> find_launcher({"OMPI_COMM_WORLD_SIZE": "4"})
        'Open MPI'
    """
    if "SLURM_STEP_NODELIST" in environment and "SLURM_PROCID" in environment:
        return "SLURM" if int(environment.get("SLURM_NTASKS", 1)) > 1 else "none"
    if "OMPI_COMM_WORLD_SIZE" in environment:
        return "Open MPI" if int(environment["OMPI_COMM_WORLD_SIZE"]) > 1 else "none"
    if {"TPU_WORKER_HOSTNAMES", "TPU_PROCESS_ADDRESSES"} & environment.keys():
        return None
    if "KUBERNETES_SERVICE_HOST" in environment:
        return "Kubernetes" if "JOB_COMPLETION_INDEX" in environment else "none"
    return None


def _check_flags(coordinator: str | None, processes: int | None, process: int | None) -> None:
    if coordinator is None or processes is None or process is None:
        raise ProcessError(
            "give all of --coordinator HOST:PORT, --processes N and --process I: the first two the "
            "same on all hosts, I from 0 to N - 1 (got "
            f"{coordinator}, {processes} and {process})"
        )
    if not 0 <= process < processes:
        raise ProcessError(f"--process is {process}: use 0 to {processes - 1}, one for each host")
    if not coordinator.rpartition(":")[2].isdigit():
        raise ProcessError(f"--coordinator is {coordinator!r}: give HOST:PORT, such as node1:8476")


class ExitMessage:
    """A message that appears on standard error if this process is killed or aborts.

    Python cannot print anything then. But the pipe to a small shell is closed, which prints the
    last line that it has read. There is no message until `set` is called.
    """

    SCRIPT = (
        "trap '' INT TERM HUP; message=; while read -r line; do message=$line; done; "
        '[ -z "$message" ] || echo "satmip: $message" >&2'
    )

    def __init__(self) -> None:
        self._shell = subprocess.Popen(
            ["/bin/sh", "-c", self.SCRIPT], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
        )

    def set(self, message: str) -> None:
        """Replace the message, a single line; an empty one is not printed."""
        assert self._shell.stdin
        with suppress(BrokenPipeError):  # training can do without the shell
            self._shell.stdin.write(message.encode() + b"\n")
            self._shell.stdin.flush()


_exit_message: ExitMessage | None = None  # of a process that has joined others


def leave(code: int, *, together: bool) -> None:
    """Exit with `code`; a process that fails alone does not wait for the others.

    Args:
        code: exit status.
        together: all processes end here, so each waits for the others.
    """
    if _exit_message is not None:
        _exit_message.set("")
        if not together:
            sys.stdout.flush()
            sys.stderr.flush()
            time.sleep(2)  # if all fail alike, the others report it before process 0 is gone
            os._exit(code)  # JAX's orderly shutdown would wait 300 s for the others
    sys.exit(code)


def broadcast_str(text: str) -> str:
    """Return the `text` of process 0, on all processes; all must call it."""
    import jax
    import numpy as np
    from jax.experimental.multihost_utils import broadcast_one_to_all

    if jax.process_count() == 1:
        return text
    data = text.encode()
    size = int(broadcast_one_to_all(np.int32(len(data))))
    padded = np.frombuffer(data[:size].ljust(size, b"\0"), np.uint8)
    return broadcast_one_to_all(padded).tobytes().decode()


def require_on_all_processes(ok: bool, problem: str) -> None:
    """Raise ProcessError on all processes unless all are `ok`; all must call it.

    Args:
        ok: whether this process can continue.
        problem: message of the error on a process that cannot.
    """
    import jax
    import numpy as np
    from jax.experimental.multihost_utils import process_allgather

    good = np.atleast_1d(process_allgather(np.bool_(ok)))
    if good.all():
        return
    bad = np.flatnonzero(~good).tolist()
    me = jax.process_index()
    if ok:
        raise ProcessError(
            f"process {me} stops because process {bad[0]} cannot continue: see its message"
        )
    raise ProcessError(f"process {me} of {len(good)} on {socket.gethostname()}: {problem}")


def is_main_process() -> bool:
    """Return whether this is process 0, which alone shows messages and writes results."""
    import jax

    return jax.process_index() == 0
