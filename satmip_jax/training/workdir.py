"""The workdir of a run: locked while a process trains there, and bound to its config and data."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import IO, Any

import jax
from ml_collections import ConfigDict

from satmip_jax.checkpoints.run_item import readable_runs, saved_steps
from satmip_jax.checkpoints.staging import needs_staging
from satmip_jax.config.conversion import differences, from_json, listed, to_json
from satmip_jax.config.resume import result_changes
from satmip_jax.config.training_length import total_steps
from satmip_jax.data.shard_dataset import ShardDataset
from satmip_jax.distributed import multihost
from satmip_jax.distributed.multihost import is_main_process
from satmip_jax.errors import ConfigError, SatmipError
from satmip_jax.metadata.schema import Schema, SchemaError
from satmip_jax.runtime.files import MAX_JSON_BYTES, read_bounded, write_atomically
from satmip_jax.runtime.paths import (
    AnyPath,
    PathError,
    as_path,
    is_remote,
    local_path,
    make_folder,
)
from satmip_jax.runtime.store_lock import PATIENCE, LockHeldError, StoreLock
from satmip_jax.runtime.stores import check_access

log = logging.getLogger(__name__)

CONFIG_FILE = "config.json"
SCHEMA_FILE = "schema.json"
INIT_FILE = "initialization.json"
LOCK_FILE = "train.lock"
_HELD = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)  # by another process


class WorkdirError(SatmipError, RuntimeError):
    """A workdir that cannot be used now; the message says why."""


def training_folder(workdir: str | os.PathLike[str], what: str = "--workdir") -> AnyPath:
    """Return the path of a workdir, after a check that a run can be written there.

    Args:
        workdir: folder of a run, or one above those of several.
        what: its option, for messages.

    Raises:
        PathError: it is in S3, and the run has several processes.
        StoreError: it is in a bucket that cannot be accessed.
    """
    path = as_path(workdir)
    if needs_staging(path) and jax.process_count() > 1:
        raise PathError(
            f"{what} {path}: a run of several processes needs a folder in gs://, or on a disk that "
            "all hosts share; only one of a single process can be in S3"
        )
    check_access(path)
    return path


# --- lock -----------------------------------------------------------------------------------------


@contextmanager
def lock_workdir(workdir: AnyPath) -> Iterator[Callable[[], None]]:
    """Make the workdir and hold it for this run, until the block or the process ends.

    Process 0 holds a lock of the file system, which also works between hosts where they share one
    that supports `flock`. A killed process holds nothing. In a bucket the lock is a `StoreLock`.

    Args:
        workdir: folder of the run.

    Yields:
        A function that raises `LockHeldError` if another process has taken the workdir over, which
        is possible in a bucket; call it before a checkpoint is saved.

    Raises:
        WorkdirError: another process is training there, or the folder cannot be written.
    """
    with ExitStack() as stack:
        problem, check = "", _held_for_good
        if is_main_process():
            try:
                check = stack.enter_context(_locked(workdir))
            except WorkdirError as error:
                problem = str(error)
        if problem := multihost.broadcast_str(problem):
            raise WorkdirError(problem)
        yield check


def _held_for_good() -> None:
    """Check nothing: a lock of the file system cannot be taken by others."""


@contextmanager
def _locked(workdir: AnyPath) -> Iterator[Callable[[], None]]:
    if is_remote(workdir):
        with _locked_in_bucket(workdir) as lock:
            yield lock.check
        return
    path = local_path(workdir, "workdir") / LOCK_FILE
    try:
        make_folder(workdir)
        file = path.open("a+b")
    except OSError as error:
        raise WorkdirError(f"{path} cannot be written: {error}. Use another --workdir.") from error
    with file:
        try:
            _lock(file)
        except OSError as error:
            if error.errno in _HELD:
                file.seek(0)
                holder = file.read(200).decode(errors="replace").strip()
                raise WorkdirError(
                    f"another process is training in {workdir} ({holder or 'unknown'}): wait until "
                    "it ends, or use another --workdir"
                ) from None
            log.warning(
                f"{path} cannot be locked here ({error}): make sure that no other process trains "
                "in this folder"
            )
        else:
            with suppress(OSError):  # only for the message of others
                file.truncate(0)
                file.write(f"process {os.getpid()} on {socket.gethostname()}\n".encode())
                file.flush()
        try:
            yield _held_for_good
        finally:
            with suppress(OSError):
                file.truncate(0)


def _lock(file: IO[bytes]) -> None:
    """Lock a file, at the second try where `satmip status` looks at it, which takes an instant."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        time.sleep(0.2)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _locked_in_bucket(workdir: AnyPath) -> StoreLock:
    lock = StoreLock(workdir / LOCK_FILE)
    try:
        lock.acquire()
    except LockHeldError as error:
        raise WorkdirError(
            f"another process is training in {workdir} ({error}): wait until it ends, or use "
            f"another --workdir. A killed one counts as ended after {PATIENCE:.0f} s"
        ) from None
    except OSError as error:
        raise WorkdirError(
            f"{workdir} cannot be written: {error}. Use another --workdir."
        ) from error
    return lock


# --- config and data ------------------------------------------------------------------------------


def check_same_options(config: ConfigDict) -> None:
    """Raise ProcessError unless all processes have the config of process 0."""
    first = from_json(multihost.broadcast_str(to_json(config)))
    changed = differences(first, config)
    multihost.require_on_all_processes(
        not changed, "options differ from those of process 0:\n  " + "\n  ".join(changed)
    )


def claim_workdir(workdir: AnyPath, config: ConfigDict, dataset: ShardDataset) -> None:
    """Write the config into the workdir, after a check that the workdir belongs to it.

    A workdir without checkpoints and scores can be taken by any config. Options that do not change
    the result may differ from those of the run, see `config.resume`; so may the place of the same
    data. A lost config is restored from a checkpoint.

    Args:
        workdir: folder of the run, see `lock_workdir`.
        config: of the run, the same on all processes.
        dataset: the train split.

    Raises:
        ConfigError: the workdir belongs to a run with another config or other data, or cannot be
            written.
        ProcessError: another process does not share the workdir.
    """
    refusal = _claim(workdir, config, dataset) if is_main_process() else ""
    if refusal := multihost.broadcast_str(refusal):
        raise ConfigError(refusal)
    path = workdir / CONFIG_FILE
    for _ in range(30):  # a network file system may show a new file with a delay
        if visible := path.is_file():
            break
        time.sleep(1)
    multihost.require_on_all_processes(
        visible,
        f"{path}, which process 0 has written, does not exist here: the workdir must be one folder "
        "that all hosts share (NFS, Lustre, Filestore, gs://)",
    )


def _claim(workdir: AnyPath, config: ConfigDict, dataset: ShardDataset) -> str:
    """Check and write the config; return the reason if that is not possible."""
    path = workdir / CONFIG_FILE
    try:
        make_folder(workdir)
        stored, problem = _read_config(path)
        if saved_steps(workdir) or (workdir / "evaluation.json").is_file():
            if refusal := _resume(workdir, stored, problem, config, dataset):
                return refusal
        elif stored is None or differences(stored, config) or _other_data(workdir, dataset):
            _take(workdir, stored)
        if stored is None or differences(stored, config):
            write_atomically(path, to_json(config))
    except OSError as error:
        return f"{path} cannot be written: {error}. Use another --workdir."
    return ""


def stored_config(workdir: AnyPath) -> ConfigDict | None:
    """Return the config of a run with checkpoints, as process 0 reads it; all must call it."""
    text = ""
    if is_main_process() and saved_steps(workdir):
        config, _ = _read_config(workdir / CONFIG_FILE)
        saved = (config for _, config, _ in readable_runs(workdir))
        config = next(saved, None) if config is None else config
        text = to_json(config) if config is not None else ""
    text = multihost.broadcast_str(text)
    return from_json(text) if text else None


def _read_config(path: AnyPath) -> tuple[ConfigDict | None, str]:
    """Return the config in a file, or None and what is wrong with it."""
    try:
        return from_json(read_bounded(path, MAX_JSON_BYTES).decode()), ""
    except FileNotFoundError:
        return None, f"{path} does not exist"
    except (SatmipError, UnicodeDecodeError) as error:
        return None, f"{path}: {error}"


def _take(workdir: AnyPath, stored: ConfigDict | None) -> None:
    """Remove what a training left that saved nothing."""
    if stored is not None:
        log.info(f"{workdir} has no checkpoints: its config is replaced")
    for left in [workdir / SCHEMA_FILE, workdir / INIT_FILE, *workdir.glob("bad_records*.json")]:
        left.unlink(missing_ok=True)


def _resume(
    workdir: AnyPath,
    stored: ConfigDict | None,
    problem: str,
    config: ConfigDict,
    dataset: ShardDataset,
) -> str:
    """Check that a config resumes a run; return the reason if it does not.

    Args:
        workdir: folder of a run that has checkpoints or scores.
        stored: config in its config.json; None if it is lost.
        problem: how it was lost.
        config: to resume with.
        dataset: to resume with.
    """
    reference = stored
    if stored is None or _changes(stored, config, len(dataset)):
        saved = [saved for _, saved, _ in readable_runs(workdir)]
        newest = stored if stored is not None else next(iter(saved), None)
        # checkpoints from before an extension do not speak for the run
        saved = [other for other in saved if _extensions(other) == _extensions(newest)]
        if stored is None and not saved:
            return (
                f"{problem}, and no checkpoint tells the config of the run. Put config.json back, "
                "or use another --workdir."
            )
        matching = [other for other in saved if not _changes(other, config, len(dataset))]
        reference = next(iter(matching or ([stored] if stored is not None else saved)))
        if stored is None or matching:
            why = problem or f"{workdir / CONFIG_FILE} differs from the checkpoints"
            log.warning(f"{why}: the config is restored from a checkpoint")
            write_atomically(workdir / CONFIG_FILE, to_json(reference))
    assert reference is not None
    if changed := _changes(reference, config, len(dataset)):
        return (
            f"{workdir} belongs to a run with another config:\n  "
            + "\n  ".join(listed(changed))
            + ("\nIt was extended: add --extend." if "optimizer.extended_from" in changed else "")
            + "\nUse another --workdir, or the config of that run to resume it."
        )
    other = _other_data(workdir, dataset)
    moved = reference.data.dir != config.data.dir
    if other or (other is None and moved):
        return (
            f"{workdir} belongs to a run on other data than {dataset.data_dir} holds now: it began "
            f"with {reference.data.dir}. Use the same data to resume it, or another --workdir."
        )
    if changed_lines := differences(reference, config):
        log.info(
            f"{workdir} is resumed with other options, which do not change its result:\n  "
            + "\n  ".join(changed_lines)
        )
    return ""


def _changes(old: ConfigDict, new: ConfigDict, examples: int) -> dict[str, tuple[Any, Any]]:
    """Return the changes of the result; the length may be stated in another way."""
    changed = result_changes(old, new)
    if not changed.keys() - {"optimizer.images", "optimizer.epochs"} and total_steps(
        old, examples
    ) == total_steps(new, examples):
        return {}
    return changed


def _extensions(config: ConfigDict | None) -> tuple[int, ...]:
    return () if config is None else tuple(config.optimizer.extended_from)


def _other_data(workdir: AnyPath, dataset: ShardDataset) -> bool | None:
    """Whether the run was begun on other data; None if nothing in the workdir tells."""
    schema: Schema | None = None
    with suppress(OSError, SchemaError):
        schema = Schema.load(workdir / SCHEMA_FILE)
    if schema is None:
        schema = next((saved for _, _, saved in readable_runs(workdir)), None)
    if schema is None:
        return None
    return _identity(schema, dataset.split) != _identity(dataset.schema, dataset.split)


def _identity(schema: Schema, split: str) -> str:
    """Return what decides whether two prepared folders give the same training, as JSON."""
    data = schema.to_json()
    keys = ("name", "image_size", "classes", "image_mean", "image_std", "fields")
    identity = {key: data[key] for key in keys}
    identity["examples"] = [schema.splits.get(split), schema.provenance.get("examples")]
    return json.dumps(identity, sort_keys=True)
