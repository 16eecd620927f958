"""Files in folders and zip archives, read in place: nothing is ever extracted to disk."""

from __future__ import annotations

import os
import unicodedata
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from satmip_jax.sources.base import SourceError, UnreadableExample, read_file

# Archives that need other software; many Chinese data sets are published as RAR.
_UNSUPPORTED = (".rar", ".7z", ".tar", ".tgz", ".gz", ".bz2", ".xz")
BAD_ZIP: tuple[type[Exception], ...] = (
    zipfile.BadZipFile,
    OSError,
    EOFError,
    ValueError,
    NotImplementedError,
    RuntimeError,
)
_UTF8_FLAG = 0x800  # of a zip member whose name is UTF-8
_ENCRYPTED_FLAG = 0x1

LINK = "symbolic link that leads out of its folder"


class File(NamedTuple):
    """A file in a folder or zip.

    Attributes:
        container: The folder or zip.
        member: Its path in the container, as `Archives.read` takes it.
        name: That path for people and comparisons: "/" between folders, composed Unicode.
    """

    container: str
    member: str
    name: str


class Archives:
    """Files with certain suffixes: by themselves, in folders at any depth, and in zips.

    What macOS adds to folders and zips (`__MACOSX`, `._*`, `.DS_Store`) is left out. A symbolic
    link to a folder is not followed, nor one to a zip outside its folder. Picklable; open archives
    are not pickled.

    Args:
        paths: Zips, folders to search, including the zips at their top level, and single files.
        suffixes: Suffixes of the files to list in folders and zips, in lower case; "" lists all.
        follow_links: Whether to list files that are symbolic links out of their folder.
        single: Suffixes of the single files to list; others are ignored.

    Attributes:
        skipped: Reason -> number of links and zips that the last `files` left out.

    Example:
        >>> from satmip_jax.sources.archives import Archives
        >>> import zipfile
        >>> with zipfile.ZipFile("NWPU-RESISC45.zip", "w") as file:
        ...     file.writestr("NWPU-RESISC45/airplane/airplane_001.jpg", b"...")
        >>> archives = Archives([Path("NWPU-RESISC45.zip")], (".jpg",))
        >>> file = next(archives.files())
        >>> file.name
        'NWPU-RESISC45/airplane/airplane_001.jpg'
        >>> archives.read(file.container, file.member, limit=4 << 20)
        b'...'
    """

    def __init__(
        self,
        paths: Sequence[Path],
        suffixes: tuple[str, ...],
        follow_links: bool = True,
        single: tuple[str, ...] = (),
    ) -> None:
        self.paths = [Path(path) for path in paths]
        self.suffixes = suffixes
        self.single = single
        self.follow_links = follow_links
        self.skipped: Counter[str] = Counter()
        self._open: dict[str, zipfile.ZipFile] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": {}}

    def files(self) -> Iterator[File]:
        """Yield every file: of each folder first those in folders, then those in zips.

        Raises:
            SourceError: A path is an archive of another kind, or the only path is a damaged zip.
        """
        self.skipped = Counter()
        for path in self.paths:
            if path.is_dir():
                yield from self._in_folder(path)
                for archive in sorted(p for p in path.iterdir() if p.suffix.lower() == ".zip"):
                    if is_macos(archive.name) or archive.is_dir():
                        continue
                    if leads_out(archive, path):
                        self.skipped[f"{LINK}: {archive.name}"] += 1
                    else:
                        yield from self._in_zip(archive)
            elif path.suffix.lower() in _UNSUPPORTED:
                raise SourceError(f"{path}: {_how_to_unpack(path)}")
            elif path.suffix.lower() == ".zip":
                yield from self._in_zip(path)
            elif path.name.lower().endswith(self.single):
                # its name is the path as given, without what leads out of a folder
                parts = [part for part in path.parts if part not in (path.anchor, "..")]
                yield File(str(path.parent), path.name, nfc("/".join(parts)))

    def _in_folder(self, path: Path) -> Iterator[File]:
        for folder, folders, files in os.walk(path):
            folders.sort()
            for name in folders:
                if os.path.islink(os.path.join(folder, name)):
                    self.skipped["folder that is a symbolic link"] += 1
            folders[:] = [name for name in folders if not is_macos(name)]
            for name in sorted(files):
                if not name.lower().endswith(self.suffixes) or is_macos(name):
                    continue
                file = os.path.join(folder, name)
                if folder == str(path) and name.lower().endswith(".zip"):
                    continue
                if not self.follow_links and leads_out(file, path):
                    self.skipped[LINK] += 1
                    continue
                member = os.path.relpath(file, path)
                yield File(str(path), member, nfc(member.replace(os.sep, "/")))

    def _in_zip(self, path: Path) -> Iterator[File]:
        try:
            members = sorted(read_directory(path), key=lambda info: info.filename)
        except BAD_ZIP as error:
            if self.paths == [path]:
                raise SourceError(
                    f"{path}: cannot be read as a zip ({error}): download it again"
                ) from error
            self.skipped[f"{path.name}: cannot be read as a zip ({str(error)[:80]})"] += 1
            return
        for info in members:
            name = _name(info)
            if name.lower().endswith(self.suffixes) and not info.is_dir() and not is_macos(name):
                yield File(str(path), info.filename, nfc(name))

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
            archive = self._open[container]
            if archive.getinfo(member).flag_bits & _ENCRYPTED_FLAG:
                raise UnreadableExample("encrypted zip member: unpack it, and give the folder")
            with archive.open(member) as file:
                # The size stated in the zip is untrusted: stop reading at the limit instead.
                data = file.read(limit + 1)
        except (zipfile.BadZipFile, zlib.error, EOFError, ValueError) as error:
            raise UnreadableExample("damaged zip member") from error
        except (OSError, RuntimeError, KeyError) as error:  # missing, or unknown compression
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
            if file.suffix.lower() in _UNSUPPORTED and not is_macos(file.name)
        ]
        hints = [f"{file.name}: {_how_to_unpack(file)}" for file in unsupported[:1]]
        hints += list(self.skipped)[:3]
        hint = f"; found {'; '.join(hints)}" if hints else ""
        return SourceError(
            f"no {what} in {', '.join(map(str, self.paths))}: expected {layout}{hint}"
        )


def path_parts(container: str, name: str) -> tuple[str, ...]:
    """Return the folder names that lead to a file, then its name.

    The container's own name is one of them, without ".zip".

    Example:
        >>> from satmip_jax.sources.archives import path_parts
        >>> path_parts("data/train.zip", "0/0_1.jpg")
        ('data', 'train', '0', '0_1.jpg')
    """
    inner = PurePosixPath(name.replace("\\", "/")).parts
    outer = Path(container)
    return (*outer.parts[:-1], outer.stem if outer.suffix.lower() == ".zip" else outer.name, *inner)


def read_directory(path: str | Path) -> list[zipfile.ZipInfo]:
    """Return the entries of a zip; raise one of `BAD_ZIP` if it is damaged."""
    with zipfile.ZipFile(path) as archive:
        return archive.infolist()


def nfc(text: str) -> str:
    """Return text in Unicode's composed form: macOS may store "ä" as "a" and a mark."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def is_macos(name: str) -> bool:
    """Whether a path is one that macOS adds to folders and zips, which holds no data.

    Example:
        >>> from satmip_jax.sources.archives import is_macos
        >>> is_macos("__MACOSX/Forest/._Forest_1.jpg"), is_macos("Forest/Forest_1.jpg")
        (True, False)
    """
    if "__MACOSX" not in name and "._" not in name and ".DS_Store" not in name:
        return False
    *folders, last = name.replace("\\", "/").split("/")
    return "__MACOSX" in (*folders, last) or last.startswith("._") or last == ".DS_Store"


def leads_out(file: str | Path, folder: Path) -> bool:
    """Whether a file in a folder is a symbolic link to something outside the folder."""
    if not os.path.islink(file):
        return False
    root = os.path.realpath(folder).rstrip(os.sep) + os.sep
    return not os.path.realpath(file).startswith(root)


def _name(info: zipfile.ZipInfo) -> str:
    """Return the name of a zip member; macOS writes UTF-8 without the flag that says so."""
    if info.filename.isascii() or info.flag_bits & _UTF8_FLAG:
        return info.filename
    try:
        return info.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return info.filename


def _how_to_unpack(path: Path) -> str:
    return (
        f"{path.suffix.lstrip('.').upper()} archives need other software: unpack it, with "
        f"`unar {path.name}` or `7z x {path.name}`, and give the folder"
    )
