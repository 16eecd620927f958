"""Splits of data sets whose images do not name one: published lists, or a random draw.

A list is a text file `<name>-<split>.txt` with the name of one image per line. The lists that
TorchGeo uses for RESISC-45, UC Merced and EuroSAT come from Neumann et al. 2019 (In-domain
representation learning for remote sensing), and most published transfer results use them. Without
lists the split is drawn within each class, by a hash of the seed and the image's name. It is the
same on every machine, and for images from folders, zips and TFDS.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from satmip_jax.sources.archives import nfc
from satmip_jax.sources.base import SourceError

MAX_LIST_BYTES = 64 << 20  # a real list takes 500 KB

SPLIT_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,31}")

Shares = tuple[tuple[str, float], ...]
SIXTY_TWENTY_TWENTY: Shares = (("train", 0.6), ("val", 0.2), ("test", 0.2))


@dataclass(frozen=True)
class Splits:
    """The split of a data set; see `find`.

    Attributes:
        shares: Splits, and the share of each class that a random draw puts into them.
        seed: Seed of the draw.
        lists: (split, file) of each list; () for a draw.
        description: What decides the split, in words; kept with prepared data.
    """

    shares: Shares
    seed: int
    lists: tuple[tuple[str, Path], ...]
    description: str

    @classmethod
    def find(
        cls,
        name: str,
        shares: Shares,
        seed: int,
        beside: Iterable[Path],
        folder: str | Path | None = None,
        checksums: Mapping[str, str] | None = None,
    ) -> Splits:
        """Use the lists of a folder, or a random draw if there are none.

        Args:
            name: The lists are called `<name>-<split>.txt`.
            shares: See `Splits`.
            seed: See `Splits`.
            beside: Paths of the images; lists are searched in these folders and beside them.
            folder: Folder that must hold the lists; no other is searched.
            checksums: Split -> MD5 of the published list, to report whether these are the same.

        Raises:
            SourceError: Some of the lists are missing, or all of them if `folder` is given.

        Example:
            >>> from satmip_jax.sources.splits import Splits
            >>> splits = Splits.find("toy", (("train", 0.5), ("val", 0.5)), seed=1, beside=[])
            >>> splits.description
            'drawn within each class with seed 1: train 50%, val 50%'
        """
        near = {f for path in beside for f in (path, path.parent) if f.is_dir()}
        for place in [Path(folder)] if folder is not None else sorted(near, reverse=True):
            lists = [(split, place / f"{name}-{split}.txt") for split, _ in shares]
            missing = [path.name for _, path in lists if not path.is_file()]
            if len(missing) == len(lists) and folder is None:
                continue
            if missing:
                raise SourceError(
                    f"{place}: no {', '.join(missing)}: provide all of "
                    f"{', '.join(path.name for _, path in lists)}, or none for a random split"
                )
            published = checksums and all(
                hashlib.md5(_bytes(path), usedforsecurity=False).hexdigest() == checksums.get(split)
                for split, path in lists
            )
            origin = "published, as TorchGeo has them" if published else "not the published ones"
            text = f"the lists {', '.join(path.name for _, path in lists)}"
            return cls(shares, seed, tuple(lists), f"{text} ({origin})" if checksums else text)
        text = ", ".join(f"{split} {share:.0%}" for split, share in shares)
        return cls(shares, seed, (), f"drawn within each class with seed {seed}: {text}")

    def assign(self, labels: Mapping[str, str], skipped: Counter[str]) -> dict[str, str]:
        """Return the split of each image.

        Args:
            labels: Every image, "<class>/<name>.<suffix>" -> its class.
            skipped: Counts images on no list, and lines without an image.

        Raises:
            SourceError: A list cannot be read, two lists share an image, or a line matches several.

        Example:
            >>> from collections import Counter
            >>> from satmip_jax.sources.splits import Splits
            >>> splits = Splits.find("toy", (("train", 0.5), ("val", 0.5)), seed=1, beside=[])
            >>> splits.assign({"a/1.jpg": "a", "a/2.jpg": "a"}, Counter())["a/1.jpg"]
            'val'
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
                sorted(keys, key=self._hash), _divide(len(keys), self.shares), strict=True
            )
        }

    def _hash(self, key: str) -> bytes:
        text = f"{self.seed}:{_stem(key)}".encode("utf-8", "replace")
        return hashlib.blake2b(text, digest_size=16).digest()

    def _listed(self, labels: Mapping[str, str], skipped: Counter[str]) -> dict[str, str]:
        by_name: dict[str, list[str]] = {}
        for key in labels:
            for name in {nfc(_stem(key)), nfc(_stem(key)).rpartition("/")[2]}:
                by_name.setdefault(name, []).append(key)
        assigned: dict[str, str] = {}
        for split, path in self.lists:
            for line in _lines(path):
                name = nfc(_stem(line))
                keys = by_name.get(name) or by_name.get(name.rpartition("/")[2], [])
                if not keys:
                    skipped[f"line of {path.name} without an image"] += 1
                elif len(keys) > 1:
                    raise SourceError(
                        f"{path}: {line[:80]!r} matches {keys[0]} and {keys[1]}: write the class "
                        "before the name, as class/name"
                    )
                elif assigned.setdefault(keys[0], split) != split:
                    raise SourceError(
                        f"{path}: {line[:80]!r} is also on the list of {assigned[keys[0]]}: an "
                        "image must be on one list only"
                    )
        if unlisted := len(labels.keys() - assigned.keys()):
            skipped["image on no list"] = unlisted
        if labels and not assigned:
            raise SourceError(
                f"none of the lines of {', '.join(str(path) for _, path in self.lists)} names one "
                f"of the {len(labels)} images: a line should look like "
                f"{min(labels).rpartition('/')[2]!r}"
            )
        return assigned


def parse_shares(text: str) -> Shares:
    """Parse "train=0.8,val=0.2" into (("train", 0.8), ("val", 0.2)).

    Raises:
        SourceError: The text cannot be parsed, or the shares do not add up to 1.
    """
    shares: dict[str, float] = {}
    for part in text.split(",") if text.strip() else ():
        name, _, number = (piece.strip() for piece in part.partition("="))
        try:
            share = float(number)
        except ValueError:
            share = -1.0
        if not SPLIT_NAME.fullmatch(name) or not 0 < share <= 1 or name in shares:
            raise SourceError(
                f'--splits: cannot read {part.strip()!r}: give shares such as "train=0.8,val=0.2"'
            )
        shares[name] = share
    if shares and abs(sum(shares.values()) - 1) > 1e-6:
        raise SourceError(
            f"--splits: the shares in {text!r} add up to {sum(shares.values()):g}, not 1"
        )
    return tuple(shares.items())


def parse_years(text: str) -> tuple[tuple[str, int], ...]:
    """Parse "train=2002,val=2013" into (("train", 2002), ("val", 2013)), in the order of the years.

    Raises:
        SourceError: The text cannot be parsed, or a split or a year occurs twice.
    """
    years: dict[int, str] = {}
    for part in text.split(",") if text.strip() else ():
        name, _, first = (piece.strip() for piece in part.partition("="))
        valid = SPLIT_NAME.fullmatch(name) and re.fullmatch(r"[0-9]{4}", first)
        if not valid or int(first) in years or name in years.values():
            raise SourceError(
                f"--years: cannot read {part.strip()!r}: give the first year of each split, each "
                'once, such as "train=2002,val=2013,test=2016"'
            )
        years[int(first)] = name
    return tuple((years[first], first) for first in sorted(years))


def split_of_year(years: Sequence[tuple[str, int]], year: int) -> str | None:
    """Return the split whose years, from its first to that of the next, hold a year.

    Args:
        years: Split and its first year, in order.
        year: From the time of an example.

    Returns:
        None if the year is before all.

    Example:
        >>> from satmip_jax.sources.splits import split_of_year
        >>> years = (("train", 2002), ("val", 2013))
        >>> split_of_year(years, 2012), split_of_year(years, 2020), split_of_year(years, 1999)
        ('train', 'val', None)
    """
    return next((name for name, first in reversed(years) if year >= first), None)


def draw_split(shares: Shares, seed: int, identity: str) -> str:
    """Return the split of an example, which depends on the seed and its id alone.

    Example:
        >>> from satmip_jax.sources.splits import draw_split
        >>> draw_split((("train", 0.5), ("val", 0.5)), seed=0, identity="a.png")
        'train'
    """
    digest = hashlib.blake2b(
        f"{seed}:{identity}".encode("utf-8", "replace"), digest_size=8
    ).digest()
    at = int.from_bytes(digest, "big") / 2**64
    for name, share in shares:
        at -= share
        if at < 0:
            return name
    return shares[-1][0]


def _divide(n: int, shares: Sequence[tuple[str, float]]) -> list[str]:
    """Return the splits of `n` items in order, in the given shares up to rounding."""
    total = 0.0
    out: list[str] = []
    for split, share in shares:
        total += share
        out += [split] * (round(total * n) - len(out))
    return out


def _stem(name: str) -> str:
    """Return the last two parts of a name without its suffix: "Forest/Forest_1"."""
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
