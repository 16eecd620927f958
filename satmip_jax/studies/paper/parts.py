"""The parts of the paper's comparison, and the runs that they share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ml_collections import ConfigDict

from satmip_jax.config.conversion import to_json, vary
from satmip_jax.config.training_length import total_steps
from satmip_jax.metadata.schema import Schema
from satmip_jax.studies.base import MethodConfigs, Plan, Study, StudyError, Variant
from satmip_jax.studies.registry import open_study

# Study -> the variants that the paper has; None for all.
PARTS: dict[str, tuple[str, ...] | None] = {
    "methods": ("untrained", "colour", "simclr", "satmip", "satmips"),
    "modalities": None,
    "convergence": None,
    "fields": None,
    "efficiency": ("simclr", "satmip", "satmips"),
}
IMAGE_ONLY = ("convergence",)  # parts of which the paper has the scores from images alone


@dataclass(frozen=True)
class Part:
    """One study of the comparison.

    Attributes:
        study: the study.
        plan: the paper's variants of it; `Variant.run` names the shared run.
    """

    study: Study
    plan: Plan

    @property
    def trains(self) -> bool:
        """Whether its variants are trained; not those whose step is only measured."""
        return self.study.measure is None


def check_parts(names: Sequence[str]) -> list[str]:
    """Return the names of parts, in the order of `PARTS`.

    Raises:
        StudyError: none, or an unknown one.
    """
    if not names or (unknown := sorted(set(names) - set(PARTS))):
        wrong = ", ".join(unknown) if names else "nothing"
        raise StudyError(f"--parts names {wrong}: choose from {', '.join(PARTS)}")
    return [name for name in PARTS if name in names]


def plan_parts(names: Sequence[str], configs: MethodConfigs, schema: Schema) -> list[Part]:
    """Plan parts of the comparison such that equal trainings are one run.

    Args:
        names: keys of `PARTS`.
        configs: the configs that the variants start from.
        schema: of the training data.

    Raises:
        StudyError: an unknown part, or data without metadata.
    """
    parts = []
    runs: dict[str, Variant] = {}  # training -> the variant that it is named after
    for name in check_parts(names):
        study = open_study(name)
        plan, wanted = study.plan(configs, schema), PARTS[name]
        variants = [v for v in plan.variants if wanted is None or v.name in wanted]
        skipped = {k: v for k, v in plan.skipped.items() if wanted is None or k in wanted}
        part = Part(study, Plan(variants, skipped))
        if part.trains:
            variants = [_shared(v, name, runs, configs.config, schema) for v in variants]
        parts.append(replace(part, plan=Plan(variants, skipped)))
    return parts


def _shared(
    variant: Variant, part: str, runs: dict[str, Variant], config: ConfigDict, schema: Schema
) -> Variant:
    """Return a variant that scores the run of an equal training, if a part before has one."""
    if variant.config is None:
        return variant
    key = training_key(variant.config, schema.splits[config.data.train_split])
    if key in runs:
        return replace(variant, config=runs[key].config, run=runs[key].run)
    name = variant.run or variant.name
    taken = {other.run for other in runs.values()}
    own = replace(variant, run=f"{part}-{name}" if name in taken else name)
    if part in IMAGE_ONLY:
        own = replace(own, features=("image",))
    runs[key] = own
    return own


def training_key(config: ConfigDict, examples: int) -> str:
    """Return a text that is equal for configs of the same training, whatever their seed.

    Args:
        config: of the training.
        examples: number of training images.

    Example:
        >>> from satmip_jax.config.conversion import vary
        >>> from satmip_jax.studies.paper.parts import training_key
        >>> epochs = vary(config, {"optimizer.images": 0, "optimizer.epochs": 2.0})
        >>> images = vary(config, {"optimizer.images": 128, "seed": 1})
        >>> training_key(epochs, 64) == training_key(images, 64)
        True
    """
    steps = total_steps(config, examples)
    images = steps * config.optimizer.batch_size
    changes: Mapping[str, Any] = {
        "seed": 0,
        "optimizer.images": images,
        "optimizer.epochs": 0.0,
    }
    return to_json(vary(config, changes))
