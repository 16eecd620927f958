"""Files in folders and zip archives, read where they lie: nothing is ever extracted to disk."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from satmip_jax.sources.base import SourceError, UnreadableExample, read_file

# Packed in ways that need other software; most data sets of China come as RAR.
_FOREIGN = (".rar", ".7z", ".tar", ".tgz", ".gz", ".bz2", ".xz")


class Archives:
    """The files of some kinds in folders, at any depth, and in zips.

    Picklable; open archives do not travel between processes.

    Args:
      paths: Zips, folders to search, whose own zips are searched too, and other files, which are
        left alone.
      suffixes: Endings of the files wanted, in lower case.

    Example:
      >>> archives = Archives([Path("NWPU-RESISC45.zip")], (".jpg",))
      >>> container, member = next(archives.files())
      >>> member
      'NWPU-RESISC45/airplane/airplane_001.jpg'
      >>> image = archives.read(container, member, limit=4 << 20)
    """

    def __init__(self, paths: Sequence[Path], suffixes: tuple[str, ...]) -> None:
        self.paths = [Path(path) for path in paths]
        self.suffixes = suffixes
        self._open: dict[str, zipfile.ZipFile] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": {}}

    def files(self) -> Iterator[tuple[str, str]]:
        """(container, member) of every file: the container is a zip or a folder.

        Raises:
          SourceError: A zip is damaged, or an archive of another kind was named.
        """
        for path in self.paths:
            if path.is_dir():
                zips = sorted(p for p in path.iterdir() if p.suffix.lower() == ".zip")
                for folder, folders, files in os.walk(path):
                    folders.sort()
                    for name in sorted(files):
                        if name.lower().endswith(self.suffixes):
                            yield str(path), os.path.relpath(os.path.join(folder, name), path)
            elif path.suffix.lower() in _FOREIGN:
                raise SourceError(f"{path}: {_unpack(path)}")
            else:
                zips = [path] if path.suffix.lower() == ".zip" else []
            for archive in zips:
                try:
                    with zipfile.ZipFile(archive) as opened:
                        members = sorted(opened.namelist())
                except (zipfile.BadZipFile, OSError, ValueError) as error:
                    raise SourceError(
                        f"{archive}: cannot be read as a zip ({error}): download it again"
                    ) from error
                for member in members:
                    if member.lower().endswith(self.suffixes):
                        yield str(archive), member

    def read(self, container: str, member: str, limit: int) -> bytes:
        """The bytes of one file, at most `limit` of them; raises `UnreadableExample`."""
        if os.path.isdir(container):
            return read_file(os.path.join(container, member), limit)
        try:
            # Read in place: a name such as ../../x in a zip never becomes a path on this disk.
            if container not in self._open:
                self._open[container] = zipfile.ZipFile(container)
            with self._open[container].open(member) as file:
                # The size that a zip states is a claim: stop reading at the bound instead.
                data = file.read(limit + 1)
        except (zipfile.BadZipFile, zlib.error, EOFError, ValueError) as error:
            raise UnreadableExample("damaged zip member") from error
        except (OSError, RuntimeError, KeyError) as error:  # encrypted, or packed in a new way
            raise UnreadableExample(f"cannot be read: {type(error).__name__}") from error
        if len(data) > limit:
            raise UnreadableExample(f"more than {limit:,} bytes")
        return data

    def nothing(self, what: str, layout: str) -> SourceError:
        """The error to raise where none of the files is usable."""
        foreign = [
            file
            for path in self.paths
            if path.is_dir()
            for file in sorted(path.iterdir())
            if file.suffix.lower() in _FOREIGN
        ]
        hint = f"; {foreign[0].name} is there: {_unpack(foreign[0])}" if foreign else ""
        return SourceError(
            f"no {what} in {', '.join(map(str, self.paths))}: expected {layout}{hint}"
        )


def parts(container: str, member: str) -> tuple[str, ...]:
    """The names that lead to a file, its container's among them: ("train", "0", "0_1.jpg")."""
    inner = PurePosixPath(member.replace("\\", "/")).parts
    outer = Path(container)
    return (*outer.parts[:-1], outer.stem if outer.suffix.lower() == ".zip" else outer.name, *inner)


def _unpack(path: Path) -> str:
    return (
        f"a {path.suffix.lstrip('.').upper()} archive is not readable here without other software: "
        f"unpack it, with `unar {path.name}` or `7z x {path.name}`, and name the folder"
    )
