"""Parts of an unfinished file of embeddings, so that an interrupted run resumes.

OUT.parts/plan.json            what decides the rows; a resumed run must match it
OUT.parts/lock                 held by the process that writes; in a bucket lock.N, a `StoreLock`
OUT.parts/FIRST-END.parquet    rows of the inputs FIRST to END - 1, with what could not be used
"""

from __future__ import annotations

import fcntl
import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from satmip_jax.errors import SatmipError
from satmip_jax.inference.embed.table import EmbeddingTable
from satmip_jax.inference.embed.writer import ROWS, open_writer, write_table
from satmip_jax.metadata.fields import FIELDS
from satmip_jax.metadata.record import Problems
from satmip_jax.prepare.plan import digest
from satmip_jax.runtime import stores
from satmip_jax.runtime.files import atomic_path, read_json_object, write_atomically
from satmip_jax.runtime.paths import AnyPath, is_remote, make_folder
from satmip_jax.runtime.store_lock import LockHeldError, StoreLock

_NAME = re.compile(r"([0-9]{12})-([0-9]{12})\.parquet")
_KEY = b"part"
_WORDS = {  # keys of a plan -> how a message calls them
    "model": "another model",
    "sources": "other options",
    "rendering": "another --bands or --scale",
    "examples": "other inputs",
    "file_sizes": "other inputs (the sizes of files changed)",
}


class EmbedError(SatmipError, ValueError):
    """Inputs that cannot be embedded, or an output that cannot be written; the message says why."""


class NothingUsableError(EmbedError):
    """None of the inputs can be used."""


@dataclass
class PartFacts:
    """What a part says beside its rows.

    Attributes:
        unusable: id and reason of inputs that could not be used.
        problems: counts of metadata values that could not be used.
        fields: field -> number of rows that have it.
        described: number of rows with a metadata vector.
        geometry_types: types of geometries that occur.
    """

    unusable: list[tuple[str, str]] = field(default_factory=list)
    problems: Problems = field(default_factory=Problems)
    fields: Counter[str] = field(default_factory=Counter)
    described: int = 0
    geometry_types: set[str] = field(default_factory=set)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "unusable": self.unusable,
            "problems": self.problems.to_json(),
            "details": self.problems.details_to_json(),
            "fields": dict(self.fields),
            "described": self.described,
            "geometry_types": sorted(self.geometry_types),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> PartFacts:
        """Invert `to_json`."""
        return cls(
            [(name, reason) for name, reason in data["unusable"]],
            Problems.from_json(data["problems"], data["details"]),
            Counter(data["fields"]),
            data.get("described", 0),
            set(data["geometry_types"]),
        )


class Parts:
    """The parts of one output.

    Args:
        out: the file that they are joined to.
        plan: what decides the rows: a JSON object, see `Inputs.fingerprint`.

    Attributes:
        folder: of the parts, beside the output.
    """

    def __init__(self, out: AnyPath, plan: Mapping[str, Any]) -> None:
        self.out, self.plan = out, json.loads(json.dumps(plan))
        self.folder = out.with_name(f"{out.name}.parts")
        self.fingerprint = digest([self.plan])
        self._lock: StoreLock | None = None
        self._files: list[tuple[AnyPath, int]] = []  # intact ones in order, each with its end

    def is_complete(self) -> bool:
        """Whether the output exists, of the same plan.

        Raises:
            EmbedError: it exists, and holds something else.
        """
        if not self.out.exists():
            return False
        try:
            earlier = EmbeddingTable.open(self.out, copy=False).info["inputs"].get("plan")
        except (SatmipError, OSError):
            earlier = None
        if earlier == self.fingerprint:
            return True
        what = "embeddings of other inputs, options or another model" if earlier else "other data"
        raise EmbedError(f"{self.out} holds {what}: choose another --out, or delete it")

    @contextmanager
    def claim(self) -> Iterator[None]:
        """Lock the folder for this process, and check that its parts belong to the plan.

        Raises:
            EmbedError: another process writes it, or it was started for something else.
        """
        make_folder(self.folder)
        with self._locked():
            self._check_plan()
            self._files = self._intact()
            kept = {path.name for path, _ in self._files}
            for name in self._names():
                if name.endswith((".tmp", ".parquet")) and name not in kept:
                    (self.folder / name).unlink()
            yield

    @contextmanager
    def _locked(self) -> Iterator[None]:
        if is_remote(self.folder):
            self._lock = StoreLock(self.folder / "lock")
            try:
                self._lock.acquire()
            except LockHeldError as error:
                raise EmbedError(f"{self.folder}: {error} is writing it") from None
            with self._lock:
                yield
            return
        with (self.folder / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise EmbedError(f"{self.folder}: another process is writing it") from error
            yield

    def _check_plan(self) -> None:
        file = self.folder / "plan.json"
        if not file.exists():
            write_atomically(file, json.dumps(self.plan, indent=1), durable=True)
            return
        earlier = read_json_object(file)
        changed = [key for key in earlier | self.plan if earlier.get(key) != self.plan.get(key)]
        if changed:
            # other examples follow from other options, and other sizes from other examples
            words = _WORDS.get(changed[0], f"another {changed[0]}")
            raise EmbedError(
                f"{self.folder} was started with {words}: give the same command to resume, choose "
                "another --out, or delete that folder to start again"
            )

    def finished(self) -> int:
        """Return the number of inputs, from the first one on, that are in parts."""
        return max((end for _, end in self._files), default=0)

    def _intact(self) -> list[tuple[AnyPath, int]]:
        """Return the parts in order, each with its end: every input from the first on is in one.

        Left out are damaged ones and those behind a gap: their inputs are done again, in parts that
        may begin and end elsewhere. A disk or a store that cannot be read says nothing of a part.
        """
        files: list[tuple[AnyPath, int]] = []
        end = 0
        for name in self._names():
            match = _NAME.fullmatch(name)
            if match is None or int(match[1]) != end or int(match[2]) <= end:
                continue
            path = self.folder / name
            with stores.store_errors(path), path.open("rb") as data:
                try:
                    pq.read_metadata(data)
                except (pa.ArrowException, OSError) as error:
                    if isinstance(error, OSError) and error.errno is not None:
                        raise  # not of pyarrow
                    continue
            end = int(match[2])
            files.append((path, end))
        return files

    def _names(self) -> list[str]:
        """Return the names of the files in the folder, sorted."""
        if is_remote(self.folder):
            return stores.names_in(self.folder)
        return sorted(path.name for path in self.folder.iterdir())

    def write(self, first: int, end: int, table: pa.Table, facts: PartFacts) -> None:
        """Write a part, at once or not at all.

        Args:
            first: number of the first input.
            end: number of the input after the last.
            table: its rows.
            facts: what it says beside them.

        Raises:
            LockHeldError: in a bucket, another process has taken this one for dead.
        """
        if self._lock:
            self._lock.check()
        schema = table.schema.with_metadata({_KEY: json.dumps(facts.to_json())})
        path = self.folder / f"{first:012d}-{end:012d}.parquet"
        with atomic_path(path, durable=True) as temporary, open_writer(temporary, schema) as writer:
            writer.write_table(table.cast(schema), ROWS)
        self._files.append((path, end))

    def facts(self) -> Iterator[PartFacts]:
        """Yield what each part says."""
        for path, _ in self._files:
            with _opened(path) as file:
                yield PartFacts.from_json(json.loads(file.schema_arrow.metadata[_KEY]))

    def join(self, info: Mapping[str, Any]) -> int:
        """Write the output of all parts, without fields that no row has.

        Args:
            info: description of the output.

        Returns:
            The number of rows.
        """
        if self._lock:
            self._lock.check()
        present: Counter[str] = Counter()
        types: set[str] = set()
        for facts in self.facts():
            present.update(facts.fields)
            types |= facts.geometry_types
        absent = {f.name for f in FIELDS if not present[f.name]}
        return write_table(self.out, self._tables(absent), info, geometry_types=types)

    def _tables(self, absent: set[str]) -> Iterator[pa.Table]:
        """Yield the rows of all parts in tables of `ROWS`, the last one of fewer."""
        waiting: list[pa.Table] = []
        for path, _ in self._files:
            with _opened(path) as file:
                if not file.metadata.num_rows:
                    continue
                names = [name for name in file.schema_arrow.names if name not in absent]
                for batch in file.iter_batches(ROWS, columns=names):
                    waiting.append(pa.Table.from_batches([batch]).replace_schema_metadata())
                    table = pa.concat_tables(waiting)
                    while table.num_rows >= ROWS:
                        yield table.slice(0, ROWS)
                        table = table.slice(ROWS)
                    waiting = [table]
        if waiting and waiting[0].num_rows:
            yield pa.concat_tables(waiting)

    def remove(self) -> None:
        """Delete the parts, once the output has their rows."""
        if is_remote(self.folder):
            stores.remove_folder(self.folder)
        else:
            shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def _opened(path: AnyPath) -> Iterator[pq.ParquetFile]:
    """Open a part, on a disk or in a bucket."""
    with stores.store_errors(path), path.open("rb") as data, pq.ParquetFile(data) as file:
        yield file
