"""The PyTorch alternative: its DataLoader, with torchvision's augmentations on the host.

torch and torchvision are optional, and imported only when used.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from typing import Any

import numpy as np
from PIL import Image

from satmip_jax.data import images
from satmip_jax.data.shard_dataset import ShardDataset
from satmip_jax.metadata import tabular

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's


def installed() -> bool:
    """Whether PyTorch and torchvision are installed."""
    return all(find_spec(name) is not None for name in ("torch", "torchvision"))


class Records:
    """A map-style data set that decodes with `satmip_jax.data.images`, one record at a time.

    Args:
        dataset: the records.
    """

    def __init__(self, dataset: ShardDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, number: int) -> dict[str, Any]:
        record, schema = self.dataset[number], self.dataset.schema
        metadata = tabular.encode([record["metadata"]], schema)
        return {
            "image": images.decode_square(record["image"], schema.image_size),
            "label": record["label"],
            "index": record["index"],
            "metadata": {name: array[0] for name, array in metadata.items()},
        }


class TwoViews:
    """A map-style data set of self-supervised learning: PIL decodes, torchvision augments.

    Args:
        dataset: the records.
        view: side of the two views, pixels.
    """

    def __init__(self, dataset: ShardDataset, view: int) -> None:
        self.dataset, self.transform = dataset, simclr(view)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, number: int) -> dict[str, Any]:
        image = Image.open(io.BytesIO(self.dataset[number]["image"])).convert("RGB")
        return {"image": self.transform(image), "second view": self.transform(image)}


def simclr(size: int) -> Any:
    """Return SimCLR's augmentation by torchvision, with the strength of `AugmentConfig`.

    Args:
        size: side of the views, pixels.
    """
    from torchvision import transforms

    return transforms.Compose(
        [
            transforms.RandomResizedCrop(size, scale=(0.08, 1.0)),
            transforms.RandomHorizontalFlip(),
            transforms.RandomApply([transforms.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
            transforms.RandomGrayscale(p=0.2),
            transforms.RandomApply([transforms.GaussianBlur(size // 20 * 2 + 1, (0.1, 2.0))]),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )


@contextmanager
def loader(data: Any, batches: Sequence[Sequence[int]], workers: int) -> Iterator[Any]:
    """Load batches with a DataLoader, as numpy arrays.

    Args:
        data: a map-style data set.
        batches: record numbers of each batch.
        workers: number of worker processes.
    """
    from torch.utils.data import DataLoader

    iterator: Any = iter(
        DataLoader(
            data,
            batch_sampler=batches,
            num_workers=workers,
            worker_init_fn=_start_worker,
            multiprocessing_context="spawn",  # a fork would copy locks held by JAX's threads
        )
    )
    try:
        yield map(_to_numpy, iterator)
    finally:
        with suppress(RuntimeError):  # a slow worker that had to be killed
            iterator._shutdown_workers()


def _start_worker(worker: int) -> None:
    del worker
    images.use_one_thread()


def _to_numpy(batch: Any) -> Any:
    if isinstance(batch, dict):
        return {name: _to_numpy(part) for name, part in batch.items()}
    return np.asarray(batch)
