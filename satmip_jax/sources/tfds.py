"""Data sets prepared by TensorFlow Datasets (TFDS): "tfds:NAME" instead of a folder.

    satmip prepare resisc45 --source tfds:resisc45 --out data/resisc45

They are read by random access and without TensorFlow, which needs the ArrayRecord format. To create
it, run `tfds build NAME --file_format=array_record` once where TensorFlow is installed. NAME is the
name in TFDS, optionally with config and version ("eurosat/rgb:2.0.0"), searched in TFDS_DATA_DIR or
~/tensorflow_datasets; or the folder of a version.

TFDS stores an image, a label and, except for So2Sat, a file name, but no locations. EuroSAT,
RESISC-45 and UC Merced have one split in TFDS; they are split as the published files are, by lists
or by the same random draw. So2Sat has training and validation, but no test split.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from satmip_jax.metadata.record import Metadata, Problems
from satmip_jax.runtime.files import FileContentError, read_json_object
from satmip_jax.sources.base import TFDS, Example, Ref, Source, SourceError, UnreadableExample
from satmip_jax.sources.class_folders import normalize_name
from satmip_jax.sources.splits import Splits

MAX_IMAGE_BYTES = 16 << 20
_VERSION = re.compile(r"\d{1,9}\.\d{1,9}\.\d{1,9}")
_FEATURES = "tensorflow_datasets.core.features."


class ThroughTFDS(Source):
    """A data set of `SOURCES`, read from files of TFDS.

    Args:
        dataset: Class of the data set, such as `EuroSAT`, with its name in TFDS (`tfds_name`),
            classes, and metadata of every image (`facts`). Either `tfds_splits`, the splits in
            TFDS -> ours, or `list_name`, `list_checksums` and `shares` as in `ClassFolders`.
        paths: One path, "tfds:NAME" or "tfds:FOLDER".
        splits_folder: Folder of the split lists, see `ClassFolders`.
        seed: Seed of the random split, without lists.

    Raises:
        SourceError: TFDS does not have the data set, or the files are missing, not in ArrayRecord
            format, or have other classes.
    """

    def __init__(
        self,
        dataset: Any,
        paths: Sequence[Path],
        splits_folder: str | Path | None = None,
        seed: int = 0,
    ) -> None:
        self.name: str = dataset.name
        self.classes: tuple[str, ...] = dataset.classes
        self.license: str = dataset.license
        self.homepage: str = dataset.homepage
        self.image_size: int = dataset.image_size
        if len(paths) != 1:
            raise SourceError(f"{self.name}: give one data set of TFDS, not {len(paths)} paths")
        if dataset.tfds_name is None:
            raise SourceError(f"TFDS has no data set {self.name}: give its files as published")
        self.facts = dict(dataset.facts)
        self.folder = _find(str(paths[0]).removeprefix(TFDS), dataset.tfds_name)
        self._sources: dict[str, Any] = {}
        self._check()
        self.published: dict[str, str] = dict(getattr(dataset, "tfds_splits", {}))
        self.splits: Splits | None = None
        if self.published and splits_folder is not None:
            raise SourceError(f"{self.name}: TFDS has its splits: remove --splits-folder")
        if self.published:
            self.splits_from = f"those of TFDS: {', '.join(self.published)}"
        else:
            self.splits = Splits.find(
                dataset.list_name,
                dataset.shares,
                seed,
                (self.folder,),
                folder=splits_folder,
                checksums=dataset.list_checksums,
            )
            self.splits_from = self.splits.description
        version = self.folder.name
        self.options = {
            "tfds": f"{dataset.tfds_name}:{version}" if _VERSION.fullmatch(version) else version,
            "splits": self.splits_from,
        }

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_sources": {}}  # open files are not pickled

    def refs(self) -> list[Ref]:
        """List every image; reads all records if their names decide the split."""
        self.skipped: Counter[str] = Counter()
        if self.splits is None:
            refs = [
                Ref(f"{original}/{number:06d}", split, (original, number))
                for original, split in self.published.items()
                for number in range(len(self._source(original)))
            ]
        else:
            refs = self._listed(self.splits)
        if not refs:
            reasons = "; ".join(f"{n} x {reason}" for reason, n in self.skipped.most_common(3))
            raise SourceError(f"{self.folder}: no usable record ({reasons or 'there are none'})")
        return refs

    def read(self, ref: Ref, problems: Problems) -> Example:
        """Read one image."""
        split, number = ref.location
        record = self._record(str(split), int(str(number)))
        image = record["image"]
        if len(image) > MAX_IMAGE_BYTES:
            raise UnreadableExample(f"more than {MAX_IMAGE_BYTES:,} bytes")
        label = self._label(record)
        return Example(ref.id, bytes(image), Metadata.parse(self.facts, problems), label)

    def _listed(self, splits: Splits) -> list[Ref]:
        from tqdm import tqdm

        labels: dict[str, str] = {}
        numbers: dict[str, int] = {}
        count = len(self._source("train"))
        for number in tqdm(range(count), desc=f"listing {self.name}", delay=2, leave=False):
            try:
                record = self._record("train", number)
                label = self._label(record)
            except UnreadableExample as reason:
                self.skipped[f"record: {reason}"] += 1
                continue
            name = bytes(record["filename"]).decode("utf-8", "replace").rpartition("/")[2]
            key = f"{label}/{name}"
            if key in labels:
                self.skipped["the same image again"] += 1
                continue
            labels[key], numbers[key] = label, number
        split = splits.assign(labels, self.skipped)
        return [Ref(key, split[key], ("train", numbers[key])) for key in sorted(split)]

    def _label(self, record: Any) -> str:
        label = int(record["label"])
        if not 0 <= label < len(self.classes):
            raise UnreadableExample(f"label {label}, of {len(self.classes)} classes")
        return self.classes[label]

    def _record(self, split: str, number: int) -> Any:
        try:
            return self._source(split)[number]
        except SourceError as error:
            raise UnreadableExample("its file cannot be opened") from error
        except Exception as error:  # readers of records raise many types
            raise UnreadableExample(f"damaged record: {type(error).__name__}") from error

    def _source(self, split: str) -> Any:
        if split not in self._sources:
            import tensorflow_datasets as tfds

            try:
                self._sources[split] = self._builder().as_data_source(
                    split, decoders={"image": tfds.decode.SkipDecoding()}
                )
            except SourceError:
                raise
            except Exception as error:
                raise SourceError(
                    f"{self.folder}: the split {split!r} cannot be read: {str(error)[:300]}"
                ) from error
        return self._sources[split]

    def _builder(self) -> Any:
        import tensorflow_datasets as tfds

        # TFDS imports any module that this file names: only allow its own features.
        features = _json(self.folder / "features.json")
        try:
            for name in _class_names(features):
                if not name.startswith(_FEATURES):
                    raise SourceError(f"features.json names {name!r}, which is no feature of TFDS")
            return tfds.builder_from_directory(self.folder)
        except Exception as error:
            raise SourceError(
                f"{self.folder}: TFDS cannot read it: {str(error)[:300]}: build it again"
            ) from error

    def _check(self) -> None:
        """Raise `SourceError` for another format, other classes or no image."""
        kind = _json(self.folder / "dataset_info.json").get("fileFormat", "tfrecord")
        if kind != "array_record":
            raise SourceError(
                f"{self.folder} is in the format {kind}, which needs TensorFlow: build it with "
                "`tfds build --file_format=array_record`, or convert it with "
                "`python -m tensorflow_datasets.scripts.convert_format --dataset_version_dir="
                f"{self.folder} --out_file_format=array_record --out_dir=...`"
            )
        features = self._builder().info.features
        if not {"image", "label"} <= features.keys():
            raise SourceError(f"{self.folder}: has {', '.join(features)}, not image and label")
        names = getattr(features["label"], "names", [])
        if [normalize_name(c) for c in names] != [normalize_name(c) for c in self.classes]:
            raise SourceError(
                f"{self.folder}: its classes are {', '.join(names[:5])}..., not those of "
                f"{self.name}, {', '.join(self.classes[:5])}..."
            )


def _find(text: str, name: str) -> Path:
    """Return the folder of a version: `text` is that folder, or a name in TFDS's folder."""
    if (Path(text) / "dataset_info.json").is_file():
        return Path(text)
    root = Path(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()
    dataset, _, version = text.partition(":")
    if dataset not in (name, name.partition("/")[0]):
        raise SourceError(f"{text!r} is neither a folder of TFDS nor the name {name!r}")
    folders = [
        path.parent
        for path in (root / name).glob("*/dataset_info.json")
        if _VERSION.fullmatch(path.parent.name) and version in ("", path.parent.name)
    ]
    if not folders:
        raise SourceError(
            f"no data set {name}{version and ':'}{version} in {root}: run "
            f"`tfds build {name.partition('/')[0]} --file_format=array_record` once where "
            "TensorFlow is installed; or give its location, in TFDS_DATA_DIR or as "
            f"tfds:FOLDER/{name}/<version>"
        )
    return max(folders, key=lambda path: [int(part) for part in path.name.split(".")])


def _json(path: Path) -> dict[str, Any]:
    try:
        return read_json_object(path)
    except (OSError, FileContentError) as error:
        raise SourceError(f"{error}: build the data set again") from error


def _class_names(value: Any) -> list[str]:
    """Return every Python class named in a `features.json`, of the old and the new form."""
    if isinstance(value, list):
        return [name for element in value for name in _class_names(element)]
    if not isinstance(value, dict):
        return []
    names = [value.get(key) for key in ("pythonClassName", "python_class_name", "type")]
    return [name for name in names if isinstance(name, str)] + _class_names([*value.values()])
