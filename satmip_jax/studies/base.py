"""What a study is: its variants, what its table holds beside the scores, and how it is drawn."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from ml_collections import ConfigDict

from satmip_jax.config import defaults as configs
from satmip_jax.metadata.fields import FIELDS
from satmip_jax.metadata.schema import Schema
from satmip_jax.studies import StudyError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from satmip_jax.studies.table import Summary
    from satmip_jax.studies.tracker import Book

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


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
class Recipes:
    """What a study starts from: a config, and the config of each method that has its own.

    Attributes:
      config: the one that was given.
      own: method -> its config, as far as the file of the config makes one, see
        `config.load_recipes`: methods want other views, say.
    """

    config: ConfigDict
    own: Mapping[str, ConfigDict] = field(default_factory=dict)

    def of(self, method: str, **changes: Any) -> ConfigDict:
        """The config of a method, with some values of `method` changed too.

        Example:
          >>> Recipes(config).of("satmips", coupled=False).method.coupled
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
            if changes := configs.differences(shared, own):
                found[method] = changes
        return found


@dataclass(frozen=True)
class Plan:
    """The variants in the order of the table, and what was left out: name -> reason."""

    variants: Sequence[Variant]
    skipped: Mapping[str, str] = field(default_factory=dict)


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
    measure: Callable[[Book], None] | None = None


def vary(config: ConfigDict, changes: Mapping[str, Any]) -> ConfigDict:
    """A copy of a config with some values changed.

    Example:
      >>> vary(config, {"method.name": "satmip"}).method.name
      'satmip'
    """
    new = config.copy_and_resolve_references()
    new.update_from_flattened_dict(dict(changes))
    return new


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
