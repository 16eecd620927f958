"""The parts of a study: its variants, its options, the columns of its table, and its plot."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from ml_collections import ConfigDict

from satmip_jax.config.conversion import differences, vary
from satmip_jax.config.fields import known_fields
from satmip_jax.errors import SatmipError
from satmip_jax.evaluation.features import KINDS
from satmip_jax.metadata.schema import Schema
from satmip_jax.runtime.options import Option, options_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


class StudyError(SatmipError, ValueError):
    """A study that cannot run, or that has failed runs; the message says what to do next."""


@dataclass(frozen=True)
class Axis:
    """The x axis of a plot of scores.

    Attributes:
        column: column of the table.
        label: axis label, with the unit.
        scale: "category", "linear" or "log".
    """

    column: str
    label: str
    scale: Literal["category", "linear", "log"] = "category"


@dataclass(frozen=True)
class Variant:
    """One entry of a comparison: a config to train and score, or a baseline to score.

    Attributes:
        name: name in the table; with the seed, also the name of its folder.
        config: the config to train, with any seed; None for a baseline.
        init: "trained", or "random" to score the same encoders before training.
        baseline: a key of `evaluation.baselines.BASELINES`, if there is no config.
        run: name of the training run to score, if several variants share one; else `name`.
        values: values of the study's own columns.
        features: kinds of features to score; those that the method lacks are left out.

    Raises:
        ValueError: the name cannot name a folder, or there are both a config and a baseline.

    Example:
        >>> from satmip_jax.config.conversion import vary
        >>> from satmip_jax.studies.base import Variant
        >>> Variant("satmip-text", vary(config, {"metadata.encoder": "text"})).method
        'satmips'
    """

    name: str
    config: ConfigDict | None = None
    init: Literal["trained", "random"] = "trained"
    baseline: str = ""
    run: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    features: tuple[str, ...] = KINDS

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"variant {self.name!r} cannot name a folder")
        if (self.config is None) != bool(self.baseline):
            raise ValueError(f"variant {self.name!r} needs either a config or a baseline")

    @property
    def method(self) -> str:
        """The source of the features: a method, "untrained", or the name of a baseline."""
        if self.config is None:
            return self.baseline
        return "untrained" if self.init == "random" else self.config.method.name


@dataclass(frozen=True)
class MethodConfigs:
    """The base config of a study, and the config of each method that has a recipe of its own.

    Attributes:
        config: the config given by the user.
        by_method: method -> its config from the same file, see `config.load_method_configs`; for
            example, methods differ in their augmentations.
    """

    config: ConfigDict
    by_method: Mapping[str, ConfigDict] = field(default_factory=dict)

    def of(self, method: str, **changes: Any) -> ConfigDict:
        """Return the config of a method.

        Args:
            method: a key of `objectives.METHODS`.
            **changes: values of `config.method` to change as well.

        Example:
            >>> from satmip_jax.studies.base import MethodConfigs
            >>> MethodConfigs(config).of("satmips", coupled=False).method.coupled
            False
        """
        values = {"name": method, **changes}
        base = self.by_method.get(method, self.config)
        return vary(base, {f"method.{key}": value for key, value in values.items()})

    def recipe_differences(self) -> dict[str, list[str]]:
        """Return, by method, how its recipe differs from the base config, its name aside."""
        changed = {}
        for method, config in self.by_method.items():
            base = vary(self.config, {"method.name": method})
            if changes := differences(base, config):
                changed[method] = changes
        return changed


@dataclass(frozen=True)
class Plan:
    """The variants of a study.

    Attributes:
        variants: the variants, in the order of the table.
        skipped: name of each variant that is left out -> reason.
    """

    variants: Sequence[Variant]
    skipped: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Summary:
    """One score, summarized over the seeds.

    Attributes:
        cells: values of the columns `table.KEY` and of the study's own columns.
        values: one value per seed.
        images: images seen in training, mean over the seeds; None if unknown.
        train_seconds: training time, mean over the seeds; None if unknown.
        low: lower end of the interval, if there is a single seed with an interval.
        high: upper end of it.
    """

    cells: Mapping[str, Any]
    values: tuple[float, ...]
    images: float | None
    train_seconds: float | None
    low: float | None
    high: float | None

    @property
    def mean(self) -> float:
        """Mean over the seeds."""
        return statistics.fmean(self.values)

    @property
    def std(self) -> float | None:
        """Sample standard deviation over the seeds; None for one seed."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    @property
    def error_bar(self) -> tuple[float, float]:
        """Lengths of the error bar below and above the mean."""
        if self.std is not None:
            return self.std, self.std
        if self.low is None or self.high is None:
            return 0.0, 0.0
        return max(0.0, self.mean - self.low), max(0.0, self.high - self.mean)

    @property
    def images_per_second(self) -> float | None:
        """Training throughput; None if unknown."""
        return self.images / self.train_seconds if self.images and self.train_seconds else None

    def at(self, column: str) -> Any:
        """Return the value of a column; for measured columns, its mean over the seeds."""
        measured = ("images", "train_seconds", "images_per_second")
        return getattr(self, column) if column in measured else self.cells[column]


@dataclass(frozen=True)
class Study:
    """A comparison: its variants, options, table and plot.

    Attributes:
        name: key in `STUDIES`.
        title: title of the table, the plot and the report.
        description: what is compared, and published numbers to compare with.
        plan: (method configs, schema of the training data, one keyword argument per option, with a
            default) -> the variants.
        x: axes to plot the scores against; the first is the main one.
        draw: (study, summaries) -> the plot.
        columns: the study's own columns of the table, name -> type of the values.
        metrics: metrics in the table that is printed.
        measure: replaces training and scoring; calls `tracker.finish` for every run.
    """

    name: str
    title: str
    description: str
    plan: Callable[..., Plan]
    x: tuple[Axis, ...]
    draw: Callable[[Study, Sequence[Summary]], Figure]
    columns: Mapping[str, type] = field(default_factory=dict)
    metrics: tuple[str, ...] = ("accuracy",)
    measure: Callable[[Any], None] | None = None

    @property
    def options(self) -> dict[str, Option]:
        """Options by name: the arguments of `plan` with a default; flags of `satmip study NAME`."""
        return options_of(self.plan)

    def check_options(self, given: Mapping[str, Any]) -> None:
        """Raise StudyError for an option that the study does not have, or an invalid value."""
        if unknown := sorted(set(given) - set(self.options)):
            raise StudyError(
                f"study {self.name!r} has no option {', '.join(unknown)}; it has: "
                f"{', '.join(self.options) or 'none'}"
            )
        for name, value in given.items():
            if problem := self.options[name].problem(value):
                raise StudyError(f"study {self.name!r}: {problem}")


def fields_with_values(schema: Schema) -> set[str]:
    """Return the names of the fields that have values in the train split.

    Raises:
        StudyError: there are none.
    """
    names = set(known_fields(schema))
    if not names:
        raise StudyError(
            f"data set {schema.name} has no metadata: this study needs some; prepare the data set "
            "with a table of metadata"
        )
    return names
