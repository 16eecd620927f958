"""Data sets as TensorFlow Datasets (TFDS) prepared them: "tfds:NAME" instead of a folder.

    satmip prepare resisc45 --source tfds:resisc45 --out data/resisc45

Read by random access and without TensorFlow, which works for sets in the ArrayRecord format:
`tfds build NAME --file_format=array_record`, run once where TensorFlow is installed, makes one.
NAME is what TFDS calls it, with config and version where wanted ("eurosat/rgb:2.0.0"), and is
looked for in TFDS_DATA_DIR, or ~/tensorflow_datasets; or the folder of a version itself.

What TFDS keeps is an image, a label and, but for So2Sat, a file name: locations do not exist there.
Its EuroSAT, RESISC-45 and UC Merced are one split, and are split as the same files would be: by
lists, or by the same draw. Its So2Sat has training and validation, without test.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from satmip_jax.metadata.record import Metadata, Problems
from satmip_jax.sources.base import TFDS, Example, Ref, SourceError, UnreadableExample
from satmip_jax.sources.class_folders import plain
from satmip_jax.sources.splits import Splits

MAX_IMAGE_BYTES = 16 << 20
MAX_JSON_BYTES = 64 << 20
_VERSION = re.compile(r"\d{1,9}\.\d{1,9}\.\d{1,9}")
_FEATURES = "tensorflow_datasets.core.features."


class ThroughTFDS:
    """One of our data sets, read from what TFDS prepared.

    Args:
      dataset: The source of the data set, such as `EuroSAT`; it says what TFDS calls it, its
        classes, and the facts true of every image.
      paths: "tfds:NAME" or "tfds:FOLDER", alone.
      splits_folder: Folder of lists, see `splits`.
      seed: Of the draw where there are no lists.

    Raises:
      SourceError: TFDS does not have the data set, or it is not there, or not in ArrayRecord, or
        not what it should be.

    Example:
      >>> source = ThroughTFDS(EuroSAT, [Path("tfds:eurosat/rgb")])
      >>> len(source.refs())
      27000
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
        self.context_ratio: float | None = None
        self.skipped: Counter[str] = Counter()
        if len(paths) != 1:
            raise SourceError(f"{self.name}: name one data set of TFDS, alone, not {len(paths)}")
        if not hasattr(dataset, "tfds_name"):
            raise SourceError(f"TFDS has no data set {self.name}: name its files as published")
        self.facts = dict(dataset.facts)
        self.folder = _find(str(paths[0]).removeprefix(TFDS), dataset.tfds_name)
        self._sources: dict[str, Any] = {}
        self._check()
        self.published: dict[str, str] = dict(getattr(dataset, "tfds_splits", {}))
        self.splits: Splits | None = None
        if self.published and splits_folder is not None:
            raise SourceError(f"{self.name}: its splits are TFDS's own: leave --splits-folder out")
        if self.published:
            self.splits_from = f"those of TFDS: {', '.join(self.published)}"
        else:
            self.splits = Splits.find(
                dataset.list_name,
                dataset.shares,
                int(seed),
                (self.folder,),
                given=splits_folder,
                checksums=dataset.list_checksums,
            )
            self.splits_from = self.splits.said
        version = self.folder.name
        self.options: dict[str, Any] = {
            "tfds": f"{dataset.tfds_name}:{version}" if _VERSION.fullmatch(version) else version,
            "splits": self.splits_from,
        }

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_sources": {}}  # open files do not travel between processes

    def refs(self) -> list[Ref]:
        """Every image; reads all records where their names decide the split."""
        self.skipped = Counter()
        if self.splits is None:
            refs = [
                Ref(f"{theirs}/{number:06d}", ours, (theirs, number))
                for theirs, ours in self.published.items()
                for number in range(len(self._source(theirs)))
            ]
        else:
            refs = self._listed(self.splits)
        if not refs:
            found = "; ".join(f"{n} x {reason}" for reason, n in self.skipped.most_common(3))
            raise SourceError(f"{self.folder}: no usable record ({found or 'there are none'})")
        return refs

    def read(self, ref: Ref, problems: Problems) -> Example:
        """Reads one image; raises `UnreadableExample` when its record is damaged."""
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
        except Exception as error:  # whatever the readers of records run into
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

        # TFDS imports whatever module this file names: only its own features will do.
        features = _json(self.folder / "features.json")
        try:
            for name in _named_classes(features):
                if not name.startswith(_FEATURES):
                    raise SourceError(f"features.json names {name!r}, no feature of TFDS")
            return tfds.builder_from_directory(self.folder)
        except Exception as error:
            raise SourceError(
                f"{self.folder}: TFDS cannot read it: {str(error)[:300]}: prepare it again"
            ) from error

    def _check(self) -> None:
        """Raises `SourceError` for another format, other classes or no image."""
        kind = _json(self.folder / "dataset_info.json").get("fileFormat", "tfrecord")
        if kind != "array_record":
            raise SourceError(
                f"{self.folder} is in the format {kind}, which needs TensorFlow: make one that "
                "does not, with `tfds build --file_format=array_record`, or convert it, with "
                "`python -m tensorflow_datasets.scripts.convert_format --dataset_version_dir="
                f"{self.folder} --out_file_format=array_record --out_dir=...`"
            )
        features = self._builder().info.features
        if not {"image", "label"} <= features.keys():
            raise SourceError(f"{self.folder}: has {', '.join(features)}, not image and label")
        names = getattr(features["label"], "names", [])
        if [plain(name) for name in names] != [plain(name) for name in self.classes]:
            raise SourceError(
                f"{self.folder}: its classes are {', '.join(names[:5])}..., not those of "
                f"{self.name}, {', '.join(self.classes[:5])}..."
            )


def _find(text: str, name: str) -> Path:
    """The folder of a version: `text` is that folder, or a name in TFDS's folder."""
    if (Path(text) / "dataset_info.json").is_file():
        return Path(text)
    root = Path(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()
    wanted, _, version = text.partition(":")
    if wanted not in (name, name.partition("/")[0]):
        raise SourceError(f"no folder of TFDS at {text!r}, and not its name, {name!r}")
    found = [
        path.parent
        for path in (root / name).glob("*/dataset_info.json")
        if _VERSION.fullmatch(path.parent.name) and version in ("", path.parent.name)
    ]
    if not found:
        raise SourceError(
            f"no data set {name}{version and ':'}{version} in {root}: where TensorFlow is "
            f"installed, run `tfds build {name.partition('/')[0]} --file_format=array_record` "
            "once; or say where it is, with TFDS_DATA_DIR, or as "
            f"tfds:FOLDER/{name}/<version>"
        )
    return max(found, key=lambda path: [int(part) for part in path.name.split(".")])


def _json(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = json.loads(file.read(MAX_JSON_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise SourceError(f"{path}: cannot be read ({error}): prepare the set again") from error
    if not isinstance(data, dict):
        raise SourceError(f"{path}: not a JSON object: prepare the set again")
    return data


def _named_classes(value: Any) -> list[str]:
    """Every Python class that a `features.json` names, of old and of new form."""
    if isinstance(value, list):
        return [name for element in value for name in _named_classes(element)]
    if not isinstance(value, dict):
        return []
    own = [value.get(key) for key in ("pythonClassName", "python_class_name", "type")]
    return [name for name in own if isinstance(name, str)] + _named_classes([*value.values()])
