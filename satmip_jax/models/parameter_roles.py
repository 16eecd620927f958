"""Roles of parameters, by ordered rules over their names; weight decay depends on the role."""

from __future__ import annotations

import re
from typing import Any, Literal

import jax

Role = Literal["token", "embedding", "tokenizer", "norm", "logit", "bias", "matrix"]

# The first pattern found in a parameter's path, "tower/.../layer/kernel", gives its role.
RULES: tuple[tuple[str, Role], ...] = (
    (r"(^|/)(cls|cls_token|missing)$", "token"),
    (r"(^|/)(position|embedding|token_embedding)$", "embedding"),
    (r"(^|/)tokenizer/", "tokenizer"),
    (r"(^|/)(\w+_)?norm\d*/(scale|bias)$", "norm"),
    (r"(^|/)(log_scale|logit_bias)$", "logit"),
    (r"(^|/)bias$", "bias"),
    (r"(^|/)kernel$", "matrix"),
)


def parameter_role(path: str) -> Role:
    """Return the role of the parameter at `path`, its names joined by "/".

    Raises:
        ValueError: no rule matches.

    Example:
        >>> from satmip_jax.models import parameter_role
        >>> parameter_role("heads_image/linear/kernel")
        'matrix'
        >>> parameter_role("metadata_encoder/transformer/tokenizer/gsd/kernel")
        'tokenizer'
    """
    for pattern, role in RULES:
        if re.search(pattern, path):
            return role
    raise ValueError(
        f"parameter {path!r} has no role: add a rule to RULES in models/parameter_roles.py"
    )


def parameter_roles(params: Any) -> Any:
    """Return the role of every parameter, as a tree of the structure of `params`."""

    def role(path: tuple[Any, ...], _: Any) -> Role:
        return parameter_role("/".join(str(getattr(key, "key", key)) for key in path))

    return jax.tree_util.tree_map_with_path(role, params)
