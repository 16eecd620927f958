"""The plan of a preparation: its examples, divided into shards, and the options that decide them.

.prepare/plan.json   what decides the bytes of the result; a resumed run must match it
.prepare/lock        held by the process that prepares the folder
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from satmip_jax.data.shard_format import shard_file
from satmip_jax.metadata.schema import MAX_NAME
from satmip_jax.prepare.shard_job import WORK, Job, PrepareError, Task, write_json
from satmip_jax.runtime.files import read_json_object
from satmip_jax.runtime.paths import AnyPath, is_remote, local_path
from satmip_jax.runtime.store_lock import LockHeldError, StoreLock
from satmip_jax.runtime.stores import names_in
from satmip_jax.sources.archives import BAD_ZIP, read_directory
from satmip_jax.sources.base import Ref, Source

_FORMAT = 1  # of the folder `WORK`
_EXAMPLES = "the table or the images changed since (other examples or classes are listed)"
_CHANGES = {  # digests of the data -> message if they differ
    "rows": "the table changed since (labels or metadata of the same images)",
    "file_sizes": "the images changed since (sizes of their files)",
}


def select(
    refs: Sequence[Ref], splits: Sequence[str] | None = None, limit: int | None = None
) -> dict[str, list[Ref]]:
    """Return the examples to prepare by split, splits in alphabetical order.

    Args:
        refs: All examples of the source.
        splits: Splits to keep; all by default.
        limit: Maximum number of examples per split, spread evenly over the list.

    Raises:
        PrepareError: There are no examples, two have the same id, or a split does not exist.

    Example:
        >>> from satmip_jax.prepare.plan import select
        >>> from satmip_jax.sources.base import Ref
        >>> refs = [Ref(str(i), "train", ()) for i in range(9)]
        >>> [ref.id for ref in select(refs, limit=3)["train"]]
        ['0', '3', '6']
    """
    by_split: dict[str, list[Ref]] = {}
    for ref in refs:
        by_split.setdefault(ref.split, []).append(ref)
    if not refs:
        raise PrepareError("the source lists no examples")
    if len({ref.id for ref in refs}) < len(refs):
        twice = Counter(ref.id for ref in refs).most_common(1)[0][0]
        raise PrepareError(f"the source lists {twice!r} twice: ids must be unique")
    if splits and (not all(splits) or len(set(splits)) < len(splits)):
        raise PrepareError(
            f"--splits {','.join(splits)!r}: name each split once, as in "
            f"{','.join(sorted(by_split))}"
        )
    if unknown := set(splits or ()) - by_split.keys():
        raise PrepareError(f"no split {min(unknown)!r}: there are {', '.join(sorted(by_split))}")
    if limit is not None and limit < 1:
        raise PrepareError(f"--limit {limit}: must be at least 1")
    selected = {}
    for split in sorted(splits or by_split):
        listed = by_split[split]
        n = min(len(listed), limit or len(listed))
        # spread, because lists are often sorted by class
        selected[split] = [listed[i * len(listed) // n] for i in range(n)]
    return selected


def check_names(name: str, splits: Iterable[str], source: Source) -> None:
    """Reject names and weights at once that could not be saved at the end.

    Args:
        name: Name of the data set.
        splits: Names of its splits.
        source: Has the names of the classes and the weights of their F1 scores.

    Raises:
        PrepareError: A name is unusable or exists twice, or a class has no weight.
    """
    for split in splits:
        try:
            shard_file(name, split, 0, 1)
        except ValueError as error:
            raise PrepareError(str(error)) from error
    classes = source.classes
    for text in classes:
        if not 0 < len(text) <= MAX_NAME or not text.isprintable():
            raise PrepareError(
                f"class {text[:MAX_NAME]!r}: must be 1 to {MAX_NAME} printable characters"
            )
    if len(set(classes)) < len(classes):
        raise PrepareError(f"class {Counter(classes).most_common(1)[0][0]!r} exists twice")
    for metric, weights in source.class_weights.items():
        if not metric.endswith("_f1"):
            raise PrepareError(f"class_weights: the name of the metric {metric!r} must end in _f1")
        if missing := sorted(set(classes) - weights.keys()):
            raise PrepareError(f"class_weights: {metric} has no weight for {missing[0]!r}")


def divide(selected: Mapping[str, Sequence[Ref]], shard_size: int) -> list[Task]:
    """Return one task per shard of at most `shard_size` examples."""
    return [
        Task(split, i, -(-len(refs) // shard_size), tuple(refs[start : start + shard_size]))
        for split, refs in selected.items()
        for i, start in enumerate(range(0, len(refs), shard_size))
    ]


def make_plan(
    job: Job, tasks: Sequence[Task], splits: Sequence[str] | None, limit: int | None
) -> dict[str, Any]:
    """Return everything that decides the bytes of the result, as JSON."""
    source = job.source
    plan = {
        "format": _FORMAT,
        "name": job.name,
        "source": source.name,
        **{f"source.{key}": value for key, value in source.options.items()},
        **job.options.to_json(),
        "limit": limit,
        "splits": sorted(splits) if splits else None,
        "examples": _fingerprint(tasks, source.classes),
        "rows": digest(source.row_of(ref) for task in tasks for ref in task.refs),
        "file_sizes": digest(file_sizes(source, (ref for task in tasks for ref in task.refs))),
    }
    return json.loads(json.dumps(plan))


def _fingerprint(tasks: Sequence[Task], classes: Sequence[str]) -> str:
    digest = hashlib.sha256(json.dumps(list(classes)).encode())
    for task in tasks:
        digest.update(json.dumps([task.split, [ref.id for ref in task.refs]]).encode())
    return digest.hexdigest()


def digest(items: Iterable[object]) -> str:
    """Return the SHA-256 of values that are JSON, in hexadecimal."""
    sha = hashlib.sha256()
    for item in items:
        sha.update(json.dumps(item).encode())
    return sha.hexdigest()


def file_sizes(source: Source, refs: Iterable[Ref]) -> Iterator[list[object]]:
    """Yield the sizes of the files of each example; of a zip's members also the checksums.

    Args:
        source: Knows the files.
        refs: The examples.
    """
    zips: dict[str, dict[str, tuple[int, int]] | None] = {}
    for ref in refs:
        sizes: list[object] = []
        for container, member in source.files_of(ref):
            if member is not None and container not in zips:
                zips[container] = _members(container)
            members = zips.get(container)
            if members is not None and member is not None:
                sizes.append(members.get(member))
                continue
            path = container if member is None else os.path.join(container, member)
            try:
                sizes.append(os.stat(path).st_size)
            except (OSError, ValueError):  # a bad example, now as later
                sizes.append(None)
        yield sizes


def _members(container: str) -> dict[str, tuple[int, int]] | None:
    """Return member -> (size, checksum), as a zip states them; None for a folder."""
    if os.path.isdir(container):
        return None
    try:
        return {info.filename: (info.file_size, info.CRC) for info in read_directory(container)}
    except BAD_ZIP:
        return {}


@contextlib.contextmanager
def claim(out: AnyPath) -> Iterator[Callable[[], None]]:
    """Lock a folder for this process; the lock is freed even if the process is killed.

    Temporary files of killed runs are removed.

    Yields:
        A function that raises LockHeldError if another process has taken the folder over, which is
        possible in a bucket, see `StoreLock`.

    Raises:
        PrepareError: The folder holds something else, or another process prepares it.
    """
    if is_remote(out):
        with _claim_in_bucket(out) as lock:
            yield lock.check
        return
    out = local_path(out, "--out")
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / WORK).exists())):
        raise PrepareError(f"{out} holds something else: choose a new or empty folder")
    (out / WORK).mkdir(parents=True, exist_ok=True)
    with (out / WORK / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise PrepareError(f"{out}: another process is preparing this folder") from error
        for left in [*out.glob(".*.tmp"), *(out / WORK).glob(".*.tmp")]:
            left.unlink()
        yield lambda: None


def _claim_in_bucket(out: AnyPath) -> StoreLock:
    names = names_in(out)
    if names and WORK not in names:
        raise PrepareError(f"{out} holds something else: choose a new or empty folder")
    lock = StoreLock(out / WORK / "lock")
    try:
        lock.acquire()
    except LockHeldError as error:
        raise PrepareError(f"{out}: another process is preparing this folder ({error})") from error
    return lock


def check_plan(out: AnyPath, plan: dict[str, Any]) -> str:
    """Save the plan in a new folder, or compare it with that of an earlier run.

    Plans of earlier versions have neither rows nor sizes of files: they are added. An earlier run
    that stored no example is forgotten.

    Returns:
        A notice for users; "" if there is nothing to say.

    Raises:
        PrepareError: The plans differ; the message lists the differences.
    """
    path = out / WORK / "plan.json"
    if path.exists() and not _stored(out):
        _forget(out)
        path.unlink()
    if not path.exists():
        write_json(path, plan)
        return ""
    earlier = read_json_object(path)
    new = [key for key in _CHANGES if key not in earlier]
    differing = [key for key in earlier | plan if earlier.get(key) != plan.get(key)]
    differing = [key for key in differing if key not in new]
    options = [key for key in differing if key not in ("examples", *_CHANGES)]
    if options == ["source.conventions"] and len(differing) > 1:
        options = []  # they follow from the rows
    # other examples are a consequence of other options, and other rows and files of both
    differing = [key for key in differing if key != "source.conventions"] or differing
    differing = options or (["examples"] if "examples" in differing else differing)
    if options:
        changes = ", ".join(
            f"{key} was {earlier.get(key)!r} and is now {plan.get(key)!r}" for key in options
        )
        raise PrepareError(
            f"{out} was started with other options: {changes}. Use the same options to resume, or "
            "another folder, or delete this one to start again"
        )
    if differing:
        changes = " and ".join(_CHANGES.get(key, _EXAMPLES) for key in differing)
        raise PrepareError(
            f"{out} was started with other data: {changes}. Its shards hold the earlier data: "
            "choose another folder, or delete this one to start again"
        )
    if new:
        write_json(path, plan)
        return (
            f"{out} was started by an earlier version, which did not record the table's rows and "
            "the sizes of the images: if they changed since, delete the folder and start again"
        )
    return ""


def _stored(out: AnyPath) -> bool:
    """Whether a finished shard of an earlier run holds an example."""
    for name in _names_in(out / WORK):
        if "-of-" not in name:
            continue
        try:
            length = read_json_object(out / WORK / name).get("length")
        except (OSError, ValueError):
            return True  # a damaged mark: its shard may hold examples
        if length != 0:
            return True
    return False


def _forget(out: AnyPath) -> None:
    """Remove shards without examples and their marks."""
    for folder in (out, out / WORK):
        for name in _names_in(folder):
            if "-of-" in name:  # a shard or a mark
                (folder / name).unlink(missing_ok=True)


def _names_in(folder: AnyPath) -> list[str]:
    return names_in(folder) if is_remote(folder) else os.listdir(folder)
