"""What the JSON files beside published weights state: pixel statistics, heads, activation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from satmip_jax.models.published_names import Statistics
from satmip_jax.runtime.files import read_json_object

NAMED = ("model.safetensors", "open_clip_model.safetensors")  # files that these belong to
ACTIVATIONS = {"gelu": "gelu", "quick_gelu": "quick_gelu", "quickgelu": "quick_gelu"}


@dataclass(frozen=True)
class Facts:
    """What is stated; None for what is not.

    Attributes:
        statistics: mean and standard deviation of the pixels, in [0, 1], that the weights expect.
        statistics_from: name of the file that states them.
        heads: number of attention heads.
        activation: of the MLPs, by our name where we have it.
    """

    statistics: Statistics | None = None
    statistics_from: str = ""
    heads: int | None = None
    activation: str | None = None


def read_facts(weights: Path) -> Facts:
    """Read config.json, preprocessor_config.json and open_clip_config.json beside a file.

    They count only beside a file named as on a model hub: others may be of another model.

    Args:
        weights: the safetensors file.

    Raises:
        FileContentError: one of them is not JSON.
        ValueError: one of them states impossible values.
    """
    if weights.name not in NAMED:
        return Facts()
    texts: dict[str, Mapping[str, Any]] = {}
    for name in ("config.json", "preprocessor_config.json", "open_clip_config.json"):
        file = weights.parent / name
        texts[name] = read_json_object(file) if file.is_file() else {}
    config, preprocessor, open_clip = texts.values()
    cfg, vision = _part(open_clip, "model_cfg"), _part(config, "vision_config") or config
    statistics, stated_by = None, ""
    for name, part, prefix in (
        ("config.json", _part(config, "pretrained_cfg"), ""),
        ("config.json", config, ""),
        ("preprocessor_config.json", preprocessor, "image_"),
        ("open_clip_config.json", _part(open_clip, "preprocess_cfg"), ""),
    ):
        if statistics is None and f"{prefix}mean" in part:
            statistics, stated_by = _statistics(part, prefix, weights.parent / name), name
    heads = _part(config, "model_args").get("num_heads", vision.get("num_attention_heads"))
    if heads is not None and type(heads) is not int:
        raise ValueError(f"config.json states {heads!r:.50} heads")
    return Facts(statistics, stated_by, heads, _activation(config, vision, cfg))


def _part(value: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    part = value.get(key)
    return part if isinstance(part, dict) else {}


def _activation(
    config: Mapping[str, Any], vision: Mapping[str, Any], open_clip: Mapping[str, Any]
) -> str | None:
    stated = vision.get("hidden_act") or _part(config, "model_args").get("act_layer")
    if stated is None and open_clip:
        stated = "quick_gelu" if open_clip.get("quick_gelu") else "gelu"
    architecture = config.get("architecture")
    if stated is None and isinstance(architecture, str):  # timm's
        stated = "quick_gelu" if "quickgelu" in architecture else "gelu"
    return None if stated is None else ACTIVATIONS.get(str(stated), str(stated)[:50])


def _statistics(part: Mapping[str, Any], prefix: str, file: Path) -> Statistics:
    mean: Any = part.get(f"{prefix}mean")
    std: Any = part.get(f"{prefix}std")
    if not (_is_triple(mean) and _is_triple(std) and min(std) > 0):
        raise ValueError(f"{file} states a mean of {mean!r:.80} and a deviation of {std!r:.80}")
    return tuple(mean), tuple(std)


def _is_triple(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 3
        and all(type(x) in (int, float) and math.isfinite(x) for x in value)
    )
