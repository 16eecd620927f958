"""Which image belongs to which split, where the images do not say: published lists, or a draw.

A list is a text file `<name>-<split>.txt` with the name of one image a line. Those that TorchGeo
reads for RESISC-45, UC Merced and EuroSAT come from Neumann et al. 2019 (In-domain representation
learning for remote sensing), and so do most numbers in tables of transfer learning. Without lists
the split is drawn: within each class, by a hash of the seed and the image's name, so it is the
same on every machine, for images from folders, from zips and from TFDS.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from satmip_jax.sources.base import SourceError

MAX_LIST_BYTES = 64 << 20  # a real list takes 500 KB

Shares = tuple[tuple[str, float], ...]
SIXTY_TWENTY_TWENTY: Shares = (("train", 0.6), ("val", 0.2), ("test", 0.2))


@dataclass(frozen=True)
class Splits:
    """How a data set is split; see `find`.

    Attributes:
      shares: The splits, and how much of each class goes to them where no lists decide.
      seed: Of the draw.
      lists: (split, file) of each list; () for a draw.
      said: In words, for people.
    """

    shares: Shares
    seed: int
    lists: tuple[tuple[str, Path], ...]
    said: str

    @classmethod
    def find(
        cls,
        name: str,
        shares: Shares,
        seed: int,
        beside: Iterable[Path],
        given: str | Path | None = None,
        checksums: Mapping[str, str] | None = None,
    ) -> Splits:
        """Takes the lists of a folder, or the draw where there are none.

        Args:
          name: The lists are `<name>-<split>.txt`.
          shares: See `Splits`.
          seed: See `Splits`.
          beside: Where the images are: lists are looked for in these folders and beside them.
          given: The folder that must have them; nothing else is looked at.
          checksums: Split -> MD5 of the published list, to say whether these are the same.

        Raises:
          SourceError: Some of the lists are missing, or `given` has none.
        """
        near = {f for path in beside for f in (path, path.parent) if f.is_dir()}
        for folder in [Path(given)] if given is not None else sorted(near, reverse=True):
            wanted = [(split, folder / f"{name}-{split}.txt") for split, _ in shares]
            missing = [path.name for _, path in wanted if not path.is_file()]
            if len(missing) == len(wanted) and given is None:
                continue
            if missing:
                raise SourceError(
                    f"{folder}: no {', '.join(missing)}: all of "
                    f"{', '.join(path.name for _, path in wanted)} are needed, or none for a "
                    "split drawn at random"
                )
            published = checksums and all(
                hashlib.md5(_bytes(path), usedforsecurity=False).hexdigest() == checksums.get(split)
                for split, path in wanted
            )
            whose = "published, as TorchGeo has them" if published else "not the published ones"
            said = f"the lists {', '.join(path.name for _, path in wanted)}"
            return cls(shares, seed, tuple(wanted), f"{said} ({whose})" if checksums else said)
        cut = ", ".join(f"{split} {share:.0%}" for split, share in shares)
        return cls(shares, seed, (), f"drawn within each class with seed {seed}: {cut}")

    def assign(self, labels: Mapping[str, str], skipped: Counter[str]) -> dict[str, str]:
        """Image -> split.

        Args:
          labels: Image, "<class>/<name>.<ending>" -> class, of all images there are.
          skipped: Counts images on no list, and lines without an image.

        Raises:
          SourceError: A list cannot be read, two lists share an image, or a line fits several.
        """
        return self._listed(labels, skipped) if self.lists else self._drawn(labels)

    def _drawn(self, labels: Mapping[str, str]) -> dict[str, str]:
        by_class: dict[str, list[str]] = {}
        for key in sorted(labels):
            by_class.setdefault(labels[key], []).append(key)
        return {
            key: split
            for keys in by_class.values()
            for key, split in zip(
                sorted(keys, key=self._order), _cut(len(keys), self.shares), strict=True
            )
        }

    def _order(self, key: str) -> bytes:
        text = f"{self.seed}:{_stem(key)}".encode("utf-8", "replace")
        return hashlib.blake2b(text, digest_size=16).digest()

    def _listed(self, labels: Mapping[str, str], skipped: Counter[str]) -> dict[str, str]:
        by_name: dict[str, list[str]] = {}
        for key in labels:
            for name in {_stem(key), _stem(key).rpartition("/")[2]}:
                by_name.setdefault(name, []).append(key)
        assigned: dict[str, str] = {}
        for split, path in self.lists:
            for line in _lines(path):
                keys = by_name.get(_stem(line)) or by_name.get(_stem(line).rpartition("/")[2], [])
                if not keys:
                    skipped[f"line of {path.name} without an image"] += 1
                elif len(keys) > 1:
                    raise SourceError(
                        f"{path}: {line[:80]!r} fits {keys[0]} and {keys[1]}: write the class "
                        "before the name, as class/name"
                    )
                elif assigned.setdefault(keys[0], split) != split:
                    raise SourceError(
                        f"{path}: {line[:80]!r} is on the list of {assigned[keys[0]]} too: an "
                        "image must be on one list alone"
                    )
        if unlisted := len(labels.keys() - assigned.keys()):
            skipped["image on no list"] = unlisted
        if labels and not assigned:
            raise SourceError(
                f"none of the lines of {', '.join(str(path) for _, path in self.lists)} names one "
                f"of the {len(labels)} images: they should read like "
                f"{min(labels).rpartition('/')[2]!r}"
            )
        return assigned


def _cut(n: int, shares: Sequence[tuple[str, float]]) -> list[str]:
    """The splits of `n` things in order, in the given shares up to rounding."""
    total = 0.0
    out: list[str] = []
    for split, share in shares:
        total += share
        out += [split] * (round(total * n) - len(out))
    return out


def _stem(name: str) -> str:
    """The last two parts of a name without its ending: "Forest/Forest_1"."""
    path = PurePosixPath(name.replace("\\", "/"))
    return "/".join((*path.parent.parts[-1:], path.stem))


def _bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_LIST_BYTES + 1)
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror}") from error
    if len(data) > MAX_LIST_BYTES:
        raise SourceError(f"{path}: more than {MAX_LIST_BYTES >> 20} MiB, not a list of images")
    return data


def _lines(path: Path) -> list[str]:
    text = _bytes(path).decode("utf-8", "replace").removeprefix("\ufeff")
    return [line.strip() for line in text.splitlines() if line.strip()]
