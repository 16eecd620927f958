"""Workdirs of the fault drill, on a disk or in a bucket, observed and damaged from outside."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote, urlencode
from urllib.request import Request, urlopen

from tests.buckets import UNDISTURBED
from tests.conftest import REPOSITORY

_INTERNAL = ("sharding", "commit")  # in the names of files that no restore reads


class LocalFolder:
    """A workdir on a disk."""

    poll = 0.002  # seconds between two observations
    appends = True  # rows of metrics.jsonl appear at once

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    def steps(self) -> set[int]:
        """Return the steps of the complete checkpoints."""
        return {int(p.name) for p in self.path.glob("checkpoints/*") if p.name.isdigit()}

    def saving(self) -> bool:
        """Return whether there is an incomplete checkpoint."""
        return any(self.path.glob("checkpoints/*.orbax-checkpoint-tmp"))

    def read(self, name: str) -> bytes:
        """Return the content of a file; empty if there is none."""
        path = self.path / name
        return path.read_bytes() if path.is_file() else b""

    def write(self, name: str, data: bytes) -> None:
        (self.path / name).write_bytes(data)

    def delete(self, name: str) -> None:
        (self.path / name).unlink()

    def files_of(self, step: int) -> list[str]:
        """Return the files of a checkpoint that are not empty, and that a restore may read."""
        files = sorted((self.path / "checkpoints" / str(step)).rglob("*"))
        files = [path for path in files if path.is_file() and path.stat().st_size]
        chosen = [path for path in files if not any(word in path.name for word in _INTERNAL)]
        return [str(path.relative_to(self.path)) for path in chosen]

    def local_copy(self, to: Path) -> Path:
        """Return a local folder with the same files."""
        return self.path

    def remove(self) -> None:
        shutil.rmtree(self.path)


class BucketFolder:
    """A workdir in a bucket of an emulator; requests to it are spared from injected faults.

    Args:
        path: of the folder, as in gs://bucket/path.
        bucket: its name.
        server: URL of the emulator.
    """

    poll = 0.1
    appends = False

    def __init__(self, path: str, bucket: str, server: str) -> None:
        self.path, self.bucket, self.server = path, bucket, server

    def __str__(self) -> str:
        return f"gs://{self.bucket}/{self.path}"

    def _objects(self, below: str = "") -> dict[str, int]:
        """Return the sizes of the objects in the folder by their names there."""
        prefix = f"{self.path}/"
        query = urlencode({"prefix": prefix + below, "maxResults": 100_000})
        listed = json.loads(_request(f"{self.server}/storage/v1/b/{self.bucket}/o?{query}"))
        items = listed.get("items", [])
        return {item["name"].removeprefix(prefix): int(item["size"]) for item in items}

    def _complete(self) -> dict[int, bool]:
        """Return the steps of all checkpoints, and whether they are complete."""
        names = [name.split("/")[1:] for name in self._objects("checkpoints/")]
        complete = {int(name[0]): False for name in names if name[0].isdigit()}
        complete |= {int(name[0]): True for name in names if name[1:] == ["commit_success.txt"]}
        return complete

    def steps(self) -> set[int]:
        return {step for step, complete in self._complete().items() if complete}

    def saving(self) -> bool:
        return not all(self._complete().values())

    def _object(self, name: str) -> str:
        return f"/storage/v1/b/{self.bucket}/o/{quote(f'{self.path}/{name}', safe='')}"

    def read(self, name: str) -> bytes:
        try:
            return _request(f"{self.server}/download{self._object(name)}?alt=media")
        except HTTPError as error:
            if error.code != 404:
                raise
            return b""

    def write(self, name: str, data: bytes) -> None:
        query = urlencode({"uploadType": "media", "name": f"{self.path}/{name}"})
        _request(f"{self.server}/upload/storage/v1/b/{self.bucket}/o?{query}", "POST", data)

    def delete(self, name: str) -> None:
        _request(self.server + self._object(name), "DELETE")

    def files_of(self, step: int) -> list[str]:
        files = sorted(self._objects(f"checkpoints/{step}/").items())
        sized = [name for name, size in files if size]
        return [n for n in sized if not any(word in n.rpartition("/")[2] for word in _INTERNAL)]

    def local_copy(self, to: Path) -> Path:
        for name in self._objects():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            (to / name).write_bytes(self.read(name))
        return to

    def remove(self) -> None:
        for name in self._objects():
            self.delete(name)


Folder = LocalFolder | BucketFolder


def _request(url: str, method: str = "GET", data: bytes | None = None) -> bytes:
    headers = {UNDISTURBED: "1", "Content-Type": "application/octet-stream"}
    with urlopen(Request(url, data, headers, method=method), timeout=120) as answer:
        return bytes(answer.read())


def inject(server: str, rates: Mapping[str, float], seed: int) -> bool:
    """Set the rates of random faults; return whether the emulator can inject them."""
    body = json.dumps({"rates": rates, "seed": seed}).encode()
    try:
        _request(f"{server}/faults", "POST", body)
    except HTTPError:
        return False
    return True


def injected(server: str) -> dict[str, Any]:
    """Return how many faults of each kind the emulator has injected."""
    return dict(json.loads(_request(f"{server}/faults")))


@contextmanager
def bucket_server(bucket: str) -> Iterator[str]:
    """Yield the URL of the emulator that STORAGE_EMULATOR_HOST names, or of one started here.

    It runs in its own session, so that it outlives the processes that a drill kills, and ends with
    this process, however that ends.
    """
    if url := os.environ.get("STORAGE_EMULATOR_HOST"):
        yield url.rstrip("/")
        return
    command = [sys.executable, "-m", "tests.buckets", "--bucket", bucket, "--until-input-ends"]
    with subprocess.Popen(
        command,
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()  # export STORAGE_EMULATOR_HOST=...
            if not line:
                raise RuntimeError(f"{' '.join(command)} ended with {process.wait()}")
            yield line.strip().partition("=")[2]
        finally:
            process.kill()
