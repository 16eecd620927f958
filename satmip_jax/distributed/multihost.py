"""Processes: one run on several hosts, each of which was given the same command.

`start` joins them, before anything touches the devices: by itself under a launcher that JAX knows
(Cloud TPU, SLURM, Open MPI, Kubernetes), or as the flags of `satmip train` say. JAX's heartbeats
then end every process soon after another one died; they do it by aborting, out of reach of Python,
so a small shell on a pipe has the last words. jax and numpy are imported late: `satmip --help` does
without.
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

HEARTBEAT = 60  # seconds without a sign of life after which a process counts as dead
JOIN = 300  # seconds that the hosts may start apart


class ProcessError(SatmipError, RuntimeError):
    """The processes of a run cannot work together; the message says why and what to do."""


def start(
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
    *,
    heartbeat: int = HEARTBEAT,
) -> None:
    """Join the other processes of this run; where there are none, do nothing.

    Call it once, before anything touches the devices. Without arguments JAX finds the others
    itself, if a launcher started them.

    Args:
        coordinator: HOST:PORT of process 0, which listens there.
        processes: how many there are; 1 stays alone, whatever the launcher says.
        process: which one this is, from 0.
        heartbeat: seconds of silence after which another process counts as dead.

    Raises:
        ProcessError: the flags are incomplete, or the launcher's processes cannot be found.

    Example:
        >>> start("10.0.0.1:8476", processes=2, process=0)  # and process=1 on the other host
    """
    flags = (coordinator, processes, process)
    given = any(flag is not None for flag in flags)
    if given and processes != 1:
        _check_flags(*flags)
    launcher = None if given else find_launcher(os.environ)
    if processes == 1 or launcher == "none":
        return

    import jax

    words = None
    if given or launcher:
        where = f"{process} of {processes} at {coordinator}" if given else f"of {launcher}"
        words = ExitMessage(
            f"process {where} on {socket.gethostname()} did not reach the others within {JOIN} s. "
            "Start the same command on every host, and let all of them reach the first one "
            "(firewall, proxy variables of the environment)."
        )
    try:
        jax.distributed.initialize(
            coordinator,
            processes,
            process,
            # detection would leave one of a host's devices to each process
            cluster_detection_method="deactivate" if given else None,
            initialization_timeout=JOIN,
            heartbeat_timeout_seconds=heartbeat,
        )
    except ValueError as error:
        if words:
            words.say("")
        if given or "coordinator_address" not in str(error):
            raise
        if launcher:
            raise ProcessError(
                f"{launcher} started several processes, but JAX cannot find them ({error}). "
                "Say which one this is: --coordinator HOST:PORT --processes N --process I, or "
                "--processes 1 if it is alone. In Kubernetes `pip install jax[k8s]` helps too."
            ) from error
        return  # no launcher that JAX knows: a single machine
    # JAX takes SIGTERM for its own preemption notice; until training handles it, it shall end us
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    words = words or ExitMessage("")
    if jax.process_count() == 1:
        words.say("")
        return
    words.say(
        f"process {jax.process_index()} of {jax.process_count()} on {socket.gethostname()} was "
        f"ended. Either it was killed itself (out of memory? preempted?), or another process died "
        f"or fell silent for {heartbeat} s: JAX's lines above say which. None is left waiting, "
        f"all end within about {heartbeat} s. Start the same command on all hosts again: it goes "
        "on from the newest checkpoint."
    )
    global _words
    _words = words


def find_launcher(environment: Mapping[str, str]) -> str | None:
    """Name of the launcher that started several processes, as its variables say.

    Returns "none" where it started just one, or where this is a pod without siblings: there JAX's
    own detection would take one device only, or fail. None where only JAX can tell: on a Cloud
    TPU, and on a single machine.
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
            "--coordinator HOST:PORT, --processes N and --process I belong together: the first two "
            "the same on all hosts, I from 0 to N - 1 (got "
            f"{coordinator}, {processes} and {process})"
        )
    if not 0 <= process < processes:
        raise ProcessError(f"--process is {process}: use 0 to {processes - 1}, one for each host")
    if not coordinator.rpartition(":")[2].isdigit():
        raise ProcessError(f"--coordinator is {coordinator!r}: give HOST:PORT, such as node1:8476")


class ExitMessage:
    """Prints the newest message on standard error if this process is ended without taking it back.

    A C++ abort and a kill leave Python no time to say anything, but they close the pipe to a
    shell, which then prints what it last read.
    """

    SCRIPT = (
        "trap '' INT TERM HUP; words=; while read -r line; do words=$line; done; "
        '[ -z "$words" ] || echo "satmip: $words" >&2'
    )

    def __init__(self, message: str) -> None:
        self._shell = subprocess.Popen(
            ["/bin/sh", "-c", self.SCRIPT], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
        )
        self.say(message)

    def say(self, message: str) -> None:
        """Replace the message, one line; an empty one is not printed."""
        assert self._shell.stdin
        with suppress(BrokenPipeError):  # training does not need the shell
            self._shell.stdin.write(message.encode() + b"\n")
            self._shell.stdin.flush()


_words: ExitMessage | None = None  # of a process that has joined others


def leave(code: int, *, together: bool) -> None:
    """Exit with `code`; processes that fail do not wait for those that cannot know of it.

    Args:
        together: all processes end here, so each waits for the others.
    """
    if _words is not None:
        _words.say("")
        if not together:
            sys.stdout.flush()
            sys.stderr.flush()
            time.sleep(2)  # if all fail alike, the others say so before losing process 0
            os._exit(code)  # JAX's orderly end would wait 300 s for the others
    sys.exit(code)


def broadcast_str(text: str) -> str:
    """The `text` of process 0, on all processes; all must call it."""
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
        problem: what to say on a process that is not.
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
        raise ProcessError(f"process {me} stops as process {bad[0]} cannot go on: see its message")
    raise ProcessError(f"process {me} of {len(good)} on {socket.gethostname()}: {problem}")


def is_main_process() -> bool:
    """Return True on the one process that prints, logs and writes results."""
    import jax

    return jax.process_index() == 0
