"""Files in folders and zip archives, read in place: nothing is ever extracted to disk."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from satmip_jax.sources.base import SourceError, UnreadableExample, read_file

# Archives that need other software; many Chinese data sets are published as RAR.
_UNSUPPORTED = (".rar", ".7z", ".tar", ".tgz", ".gz", ".bz2", ".xz")


class Archives:
    """Files with certain suffixes in folders, at any depth, and in zips.

    Picklable; open archives are not pickled.

    Args:
        paths: Zips, and folders to search, including the zips at their top level. Other files are
            ignored.
        suffixes: Suffixes of the files to list, in lower case.

    Example:
        >>> from satmip_jax.sources.archives import Archives
        >>> import zipfile
        >>> with zipfile.ZipFile("NWPU-RESISC45.zip", "w") as file:
        ...     file.writestr("NWPU-RESISC45/airplane/airplane_001.jpg", b"...")
        >>> archives = Archives([Path("NWPU-RESISC45.zip")], (".jpg",))
        >>> container, member = next(archives.files())
        >>> member
        'NWPU-RESISC45/airplane/airplane_001.jpg'
        >>> archives.read(container, member, limit=4 << 20)
        b'...'
    """

    def __init__(self, paths: Sequence[Path], suffixes: tuple[str, ...]) -> None:
        self.paths = [Path(path) for path in paths]
        self.suffixes = suffixes
        self._open: dict[str, zipfile.ZipFile] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": {}}

    def files(self) -> Iterator[tuple[str, str]]:
        """Yield (container, member) for every file; a container is a zip or a folder.

        Raises:
            SourceError: A zip is damaged, or a path is an archive of another kind.
        """
        for path in self.paths:
            if path.is_dir():
                zips = sorted(p for p in path.iterdir() if p.suffix.lower() == ".zip")
                for folder, folders, files in os.walk(path):
                    folders.sort()
                    for name in sorted(files):
                        if name.lower().endswith(self.suffixes):
                            yield str(path), os.path.relpath(os.path.join(folder, name), path)
            elif path.suffix.lower() in _UNSUPPORTED:
                raise SourceError(f"{path}: {_how_to_unpack(path)}")
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
        """Return the contents of one file, of at most `limit` bytes.

        Raises:
            UnreadableExample: The file is damaged, missing, encrypted or too long.
        """
        if os.path.isdir(container):
            return read_file(os.path.join(container, member), limit)
        try:
            # Read in place: a name such as ../../x in a zip never becomes a path on this disk.
            if container not in self._open:
                self._open[container] = zipfile.ZipFile(container)
            with self._open[container].open(member) as file:
                # The size stated in the zip is untrusted: stop reading at the limit instead.
                data = file.read(limit + 1)
        except (zipfile.BadZipFile, zlib.error, EOFError, ValueError) as error:
            raise UnreadableExample("damaged zip member") from error
        except (OSError, RuntimeError, KeyError) as error:  # encrypted, or unknown compression
            raise UnreadableExample(f"cannot be read: {type(error).__name__}") from error
        if len(data) > limit:
            raise UnreadableExample(f"more than {limit:,} bytes")
        return data

    def nothing_found(self, what: str, layout: str) -> SourceError:
        """Return the error to raise if no file can be used.

        Args:
            what: What was looked for, such as "EuroSAT chips".
            layout: The expected layout of the files.
        """
        unsupported = [
            file
            for path in self.paths
            if path.is_dir()
            for file in sorted(path.iterdir())
            if file.suffix.lower() in _UNSUPPORTED
        ]
        hint = (
            f"; found {unsupported[0].name}: {_how_to_unpack(unsupported[0])}"
            if unsupported
            else ""
        )
        return SourceError(
            f"no {what} in {', '.join(map(str, self.paths))}: expected {layout}{hint}"
        )


def path_parts(container: str, member: str) -> tuple[str, ...]:
    """Return the folder names that lead to a file, then its name.

    The container's own name is one of them, without ".zip".

    Example:
        >>> from satmip_jax.sources.archives import path_parts
        >>> path_parts("data/train.zip", "0/0_1.jpg")
        ('data', 'train', '0', '0_1.jpg')
    """
    inner = PurePosixPath(member.replace("\\", "/")).parts
    outer = Path(container)
    return (*outer.parts[:-1], outer.stem if outer.suffix.lower() == ".zip" else outer.name, *inner)


def _how_to_unpack(path: Path) -> str:
    return (
        f"{path.suffix.lstrip('.').upper()} archives need other software: unpack it, with "
        f"`unar {path.name}` or `7z x {path.name}`, and give the folder"
    )
