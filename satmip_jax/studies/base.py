"""What a study is: its variants, what its table holds beside the scores, and how it is drawn."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from ml_collections import ConfigDict

from satmip_jax.config.conversion import differences, vary
from satmip_jax.errors import SatmipError
from satmip_jax.metadata.fields import FIELDS
from satmip_jax.metadata.schema import Schema

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


class StudyError(SatmipError, ValueError):
    """A study that cannot be run, or parts of which failed; the message says what to do next."""


@dataclass(frozen=True)
class Axis:
    """What the scores are drawn against.

    Attributes:
      column: of the table.
      label: for people, with the unit.
      scale: "category", "linear" or "log".
    """

    column: str
    label: str
    scale: Literal["category", "linear", "log"] = "category"


@dataclass(frozen=True)
class Variant:
    """One line of a comparison.

    Attributes:
      name: its name in the table; with the seed, also of its run's folder.
      config: what is trained, any seed; None for features that need no training.
      init: "trained", or "random": the same encoders as they were before training.
      baseline: a key of `evaluation.evaluate.BASELINES`, where there is no config.
      run: name of the run that is scored, where several variants share one; else `name`.
      values: column of the study -> value.

    Example:
      >>> Variant("satmip-text", vary(config, {"metadata.encoder": "text"}))
    """

    name: str
    config: ConfigDict | None = None
    init: Literal["trained", "random"] = "trained"
    baseline: str = ""
    run: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"variant {self.name!r} cannot name a folder")
        if (self.config is None) != bool(self.baseline):
            raise ValueError(f"variant {self.name!r} needs a config or a baseline, not both")

    @property
    def method(self) -> str:
        """What made the features: a method, "untrained", or the name of a baseline."""
        if self.config is None:
            return self.baseline
        return "untrained" if self.init == "random" else self.config.method.name


@dataclass(frozen=True)
class MethodConfigs:
    """What a study starts from: a config, and the config of each method that has its own.

    Attributes:
      config: the one that was given.
      own: method -> its config, as far as the file of the config makes one, see
        `config.load_method_configs`: methods want other views, say.
    """

    config: ConfigDict
    own: Mapping[str, ConfigDict] = field(default_factory=dict)

    def of(self, method: str, **changes: Any) -> ConfigDict:
        """The config of a method, with some values of `method` changed too.

        Example:
          >>> MethodConfigs(config).of("satmips", coupled=False).method.coupled
          False
        """
        named = {"name": method, **changes}
        start = self.own.get(method, self.config)
        return vary(start, {f"method.{key}": value for key, value in named.items()})

    def departures(self) -> dict[str, list[str]]:
        """Method -> where its own recipe differs from the config given, beside its name."""
        found = {}
        for method, own in self.own.items():
            shared = vary(self.config, {"method.name": method})
            if changes := differences(shared, own):
                found[method] = changes
        return found


@dataclass(frozen=True)
class Plan:
    """The variants in the order of the table, and what was left out: name -> reason."""

    variants: Sequence[Variant]
    skipped: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Summary:
    """One score over the seeds.

    Attributes:
      cells: what it is of: the columns `KEY` and the study's own.
      values: one a seed.
      images, train_seconds: mean over the seeds; None where unknown.
      low, high: interval of the value, where there is one seed and one interval.
    """

    cells: Mapping[str, Any]
    values: tuple[float, ...]
    images: float | None
    train_seconds: float | None
    low: float | None
    high: float | None

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def std(self) -> float | None:
        """Sample standard deviation over the seeds; None for one seed."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    @property
    def spread(self) -> tuple[float, float]:
        """How far an error bar reaches below and above the mean."""
        if self.std is not None:
            return self.std, self.std
        if self.low is None or self.high is None:
            return 0.0, 0.0
        return max(0.0, self.mean - self.low), max(0.0, self.high - self.mean)

    @property
    def images_per_second(self) -> float | None:
        return self.images / self.train_seconds if self.images and self.train_seconds else None

    def at(self, column: str) -> Any:
        """The value of a column, or its mean over the seeds."""
        measured = ("images", "train_seconds", "images_per_second")
        return getattr(self, column) if column in measured else self.cells[column]


@dataclass(frozen=True)
class Study:
    """A comparison: which variants, against what they are drawn, and how.

    Attributes:
      name: its key in `STUDIES`.
      title, description: for people; the description says what is asked, and what to compare with.
      plan: (recipes, schema of the training data, options by keyword) -> the variants.
      x: what the plot shows the scores against; the first is the study's own axis.
      columns: its own columns of the table, name -> type of the values.
      draw: (study, summaries) -> the plot.
      metrics: which the final table shows.
      options: names of the options that `plan` takes.
      measure: takes the place of training and scoring; calls `book.finish` for every variant.
    """

    name: str
    title: str
    description: str
    plan: Callable[..., Plan]
    x: tuple[Axis, ...]
    draw: Callable[[Study, Sequence[Summary]], Figure]
    columns: Mapping[str, type] = field(default_factory=dict)
    metrics: tuple[str, ...] = ("accuracy",)
    options: tuple[str, ...] = ()
    measure: Callable[[Any], None] | None = None


def known_fields(schema: Schema) -> set[str]:
    """Names of the fields of which the train split has values.

    Raises:
      StudyError: there are none.
    """
    known = {f.name for f in FIELDS if schema.fields[f.name].count}
    if not known:
        raise StudyError(
            f"the data set {schema.name} has no metadata at all: there is nothing to study; "
            "prepare it with a table of metadata"
        )
    return known
