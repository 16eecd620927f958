"""The data sets that the runs of a study are scored on, and by which splits and protocols."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ml_collections import ConfigDict

from satmip_jax.data.shard_dataset import ShardDataset
from satmip_jax.studies.base import StudyError


@dataclass(frozen=True)
class EvalData:
    """A data set that runs are scored on.

    Attributes:
        folder: prepared data.
        split: examples to classify.
        bank: split of the labelled examples.
        tune: split on which strengths are chosen; None for a part of the bank.
        protocols: names in `PROTOCOLS`; None for the default ones.
        block: side of the cells of the blocked scores, degrees; None for the default.
        leak_free: score metadata also without the fields that reveal the size of the image.
    """

    folder: str
    split: str
    bank: str
    tune: str | None = None
    protocols: tuple[str, ...] | None = None
    block: float | None = None
    leak_free: bool = False

    @property
    def options(self) -> dict[str, Any]:
        """Arguments of `evaluate` and `evaluate_baseline`, without those that are the default."""
        options: dict[str, Any] = {"split": self.split, "bank": self.bank}
        given = {"tune": self.tune, "protocols": self.protocols, "block": self.block}
        return options | {name: value for name, value in given.items() if value is not None}

    @property
    def description(self) -> str:
        """All but the folder, in words; scores of equal descriptions are comparable."""
        parts = [f"{self.split} by {self.bank}"]
        parts += [f"tune {self.tune}"] * (self.tune is not None)
        parts += ["+".join(self.protocols or ())] * (self.protocols is not None)
        parts += [f"block {self.block:g}"] if self.block is not None else []
        return ", ".join(parts + ["leak-free"] * self.leak_free)


def of_training(config: ConfigDict) -> EvalData:
    """Return how a study scores on the data of its training, or on another folder with its splits.

    Args:
        config: names folder and splits.
    """
    return EvalData(config.data.dir, config.data.val_split, config.data.train_split)


def by_name(entries: Iterable[EvalData]) -> dict[str, EvalData]:
    """Check that data sets can be scored on; return them by name.

    Args:
        entries: data sets, each folder once.

    Raises:
        StudyError: a data set without labels, or two of one name, whose scores could not be told
            apart.
        ShardError: a folder without prepared data, or without one of the splits.
    """
    data: dict[str, EvalData] = {}
    for entry in entries:
        for split in (entry.bank, entry.split):
            schema = ShardDataset(entry.folder, split).schema
        if not schema.classes:
            raise StudyError(f"{entry.folder} has no classes: a study scores on labelled data")
        if schema.name in data:
            raise StudyError(
                f"{entry.folder} and {data[schema.name].folder} are both named {schema.name!r}: "
                "prepare one of them with another --name"
            )
        data[schema.name] = entry
    return data
