"""So2Sat LCZ42 (Zhu et al. 2020): 400,673 patches of 32x32 pixels in 17 local climate zones.

sensor       Sentinel-2; Sentinel-1 is not read
bands        B4, B3, B2 (665, 560, 490 nm) of ten bands of reflectance, as RGB. They are scaled to
             8 bit as TFDS does, min(255, 3.5 x 255 x reflectance), so that both ways of reading
             give the same pixels; a reflectance of 0.29 and more is white. The publisher and
             TorchGeo keep floats; the conversion of SatMIP's authors is unknown
ground size  10 m per pixel, 320 m per patch
labels       17 local climate zones, one-hot, in the order of the files
metadata     none in these files
splits       by file. Version 2: training.h5 (352,366 patches of 42 cities); validation.h5 (24,119)
             and testing.h5 (24,188), the western and eastern halves of ten other cities in ten
             cultural zones. Version 3: training.h5 and testing.h5, in the folders culture_10
             (testing on these ten cities), random and block; give one of these folders
licence      CC BY 4.0; contains modified Copernicus Sentinel data
source       https://doi.org/10.14459/2018mp1483140 (version 2), https://mediatum.ub.tum.de/1613658
             (version 3). MD5 of version 2: training 702bc6a9368ebff4542d791e53469244, validation
             71cfa6795de3e22207229d06d6f8775d, testing e81426102b488623a723beab52b31a8a. MD5 of
             culture_10: testing 58335ce34ca3a18424e19da84f2832fc, training as in version 2
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from satmip_jax.data import images
from satmip_jax.metadata.record import Metadata, Problems
from satmip_jax.sources.base import Example, Ref, Source, SourceError, UnreadableExample

CLASSES = (
    "Compact high-rise",
    "Compact mid-rise",
    "Compact low-rise",
    "Open high-rise",
    "Open mid-rise",
    "Open low-rise",
    "Lightweight low-rise",
    "Large low-rise",
    "Sparsely built",
    "Heavy industry",
    "Dense trees",
    "Scattered trees",
    "Bush or scrub",
    "Low plants",
    "Bare rock or paved",
    "Bare soil or sand",
    "Water",
)
FILES = {"training.h5": "train", "validation.h5": "val", "testing.h5": "test"}
SIZE = 32  # pixels
BANDS = 10  # B2, B3, B4, B5, B6, B7, B8, B8A, B11, B12
WHITE = 1 / 3.5  # reflectance

MAX_PATCHES = 10_000_000
# Limit of a chunk's stored and declared size. HDF5 decompresses a full chunk to read one patch, to
# up to 1,032 times its stored size, whatever the file declares.
MAX_CHUNK_BYTES = 1 << 20
_FILTERS = (1, 2, 3)  # deflate, shuffle, fletcher32; any other may be a plug-in


class So2Sat(Source):
    """So2Sat LCZ42 from its HDF5 files. Needs h5py (the extra `so2sat`).

    The files are untrusted: only two arrays are opened, and links to other files, virtual or
    external data and filters that may be plug-ins are rejected.

    Args:
        paths: The folder that holds the files, or the files.

    Raises:
        SourceError: h5py is not installed, there are no files, or their arrays are not as
            published.
    """

    name = "so2sat"
    classes = CLASSES
    license = "CC BY 4.0 (So2Sat LCZ42); contains modified Copernicus Sentinel data"
    homepage = "https://doi.org/10.14459/2018mp1483140"
    image_size = SIZE
    facts: Mapping[str, Any] = {
        "gsd": (10.0, 10.0),
        "wavelengths": (665.0, 560.0, 490.0),
        "sensor_platform": "SENTINEL2",
    }
    tfds_name = "so2sat/rgb"
    tfds_splits: Mapping[str, str] = {"train": "train", "validation": "val"}  # it has no test

    def __init__(self, paths: Sequence[Path]) -> None:
        super().__init__(paths)
        self.files = self._find()
        self._open: dict[str, Any] = {}
        for path in self.files.values():
            self._arrays(str(path))
        self.splits_from = "the publisher's files " + ", ".join(
            path.name for path in self.files.values()
        )
        self.options = {"splits": self.splits_from}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": {}}  # open files are not pickled

    def refs(self) -> list[Ref]:
        """List every patch whose label is one-hot, in the order of the files; reads all labels."""
        skipped: Counter[str] = Counter()
        refs: list[Ref] = []
        for split, path in self.files.items():
            _, labels = self._arrays(str(path))
            for start in range(0, len(labels), 65536):
                try:
                    rows = np.asarray(labels[start : start + 65536])
                except OSError as error:
                    raise SourceError(
                        f"{path}: its labels are damaged ({error}): download it again"
                    ) from error
                one_hot = ((rows == 1).sum(1) == 1) & ((rows == 0).sum(1) == len(CLASSES) - 1)
                skipped[f"label of {path.name} that is not one-hot"] += int((~one_hot).sum())
                for i in np.flatnonzero(one_hot):
                    number = start + int(i)
                    location = (str(path), number, CLASSES[int(rows[i].argmax())])
                    refs.append(Ref(f"{path.stem}/{number:06d}", split, location))
        self.skipped = +skipped  # without zeros
        if not refs:
            raise SourceError(f"{', '.join(map(str, self.files.values()))}: no usable patch")
        return refs

    def read(self, ref: Ref, problems: Problems) -> Example:
        """Read one patch as PNG."""
        path, number, label = ref.location
        try:
            patches, _ = self._arrays(str(path))
            bands = np.asarray(patches[int(str(number))], np.float64)
        except (SourceError, OSError, ValueError, IndexError) as error:
            raise UnreadableExample(f"cannot be read: {type(error).__name__}") from error
        metadata = Metadata.parse(self.facts, problems)
        return Example(ref.id, images.encode_png(to_rgb(bands)), metadata, str(label))

    def files_of(self, ref: Ref) -> tuple[tuple[str, str | None], ...]:
        """Return the HDF5 file."""
        return ((str(ref.location[0]), None),)

    def row_of(self, ref: Ref) -> tuple[object, ...]:
        """Return the position of the patch, and the label."""
        return ref.location[1:]

    def _find(self) -> dict[str, Path]:
        """Return the file of each split."""
        candidates = [
            path / name if path.is_dir() else path
            for path in self.paths
            for name in (FILES if path.is_dir() else ("",))
        ]
        files: dict[str, Path] = {}
        for path in candidates:
            split = FILES.get(path.name.lower())
            if split is not None and path.is_file():
                if split in files:
                    raise SourceError(f"two files for {split}, {files[split]} and {path}: give one")
                files[split] = path
        if not files:
            raise SourceError(
                f"no So2Sat files in {', '.join(map(str, self.paths))}: expected "
                f"{', '.join(FILES)} (for version 3, give one of its folders)"
            )
        return files

    def _arrays(self, path: str) -> tuple[Any, Any]:
        """Return the arrays sen2 and label of a file, checked."""
        if path not in self._open:
            self._open[path] = _open(path)
        return self._open[path]


def to_rgb(bands: np.ndarray) -> np.ndarray:
    """Convert the reflectances of the ten bands to 8-bit RGB, scaled as in TFDS.

    Args:
        bands: float64 (32, 32, 10).

    Returns:
        uint8 (32, 32, 3).

    Raises:
        UnreadableExample: A value of the three bands is not finite.

    Example:
        >>> from satmip_jax.sources.so2sat import to_rgb
        >>> to_rgb(np.full((32, 32, 10), 0.2))[0, 0]
        array([178, 178, 178], dtype=uint8)
    """
    rgb = bands[..., [2, 1, 0]]
    if not np.isfinite(rgb).all():
        raise UnreadableExample("reflectances that are not finite")
    return np.clip(rgb * (255.0 / WHITE), 0, 255).astype(np.uint8)


def _open(path: str) -> tuple[Any, Any]:
    try:
        import h5py
    except ImportError as error:
        raise SourceError(
            "so2sat: HDF5 files need h5py: pip install 'satmip-jax[so2sat]'"
        ) from error
    try:
        file = h5py.File(path, "r", locking=False)  # locks fail on many shared disks
    except OSError as error:
        raise SourceError(f"{path}: cannot be read as HDF5 ({error}): download it again") from error
    patches = _array(h5py, file, path, "sen2", (SIZE, SIZE, BANDS), "f")
    labels = _array(h5py, file, path, "label", (len(CLASSES),), "fiu")
    if len(patches) != len(labels):
        raise SourceError(f"{path}: {len(patches)} patches and {len(labels)} labels")
    return patches, labels


def _array(h5py: Any, file: Any, path: str, name: str, shape: tuple[int, ...], kinds: str) -> Any:
    """Return one array, if it is stored in this file and has the published shape and type."""
    where = f"{path}: {name!r}"
    try:
        link = file.get(name, getlink=True)
        if link is None:
            raise SourceError(f"{where} is missing: there are {', '.join(list(file)[:20])}")
        if not isinstance(link, h5py.HardLink):
            raise SourceError(f"{where} is a link to elsewhere, which is not followed")
        array = file[name]
        if not isinstance(array, h5py.Dataset):
            raise SourceError(f"{where} is not an array")
        if array.is_virtual or array.external:
            raise SourceError(f"{where} has its data in other files, which are not read")
        if array.dtype.kind not in kinds or array.dtype.itemsize > 8:
            raise SourceError(f"{where} has type {array.dtype}, not plain numbers")
        if array.shape is None or array.shape[1:] != shape or len(array.shape) != len(shape) + 1:
            raise SourceError(f"{where} has shape {array.shape}, not (n, {str(shape)[1:]}")
        if len(array) > MAX_PATCHES:
            raise SourceError(f"{where} has {len(array):,} patches, more than {MAX_PATCHES:,}")
        plan = array.id.get_create_plist()
        filters = {plan.get_filter(i)[0] for i in range(plan.get_nfilters())}
        if unknown := sorted(filters - set(_FILTERS)):
            raise SourceError(f"{where} uses the HDF5 filter {unknown[0]}, which is not supported")
        if array.chunks:
            sizes = [int(np.prod(array.chunks, dtype=float)) * array.dtype.itemsize]
            array.id.chunk_iter(lambda chunk: sizes.append(chunk.size))
            if max(sizes) > MAX_CHUNK_BYTES:
                raise SourceError(
                    f"{where} has chunks of {max(sizes):,} bytes, more than "
                    f"{MAX_CHUNK_BYTES:,}: repack it, with `h5repack -l CONTI`"
                )
    except (OSError, RuntimeError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, SourceError):
            raise
        raise SourceError(f"{where} cannot be read ({error}): download it again") from error
    return array
