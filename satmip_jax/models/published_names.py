"""Names of the parameters of published ViTs, family by family, and timm's names for them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

Statistics = tuple[tuple[float, ...], tuple[float, ...]]  # mean, std of pixels
IMAGENET: Statistics = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP: Statistics = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))

# What a ViT of ours does not have: pattern of a name -> the reason that is given.
UNSUPPORTED = {
    r"register_tokens$|reg_token$": "register tokens",
    r"rope|freqs": "rotary position embeddings",
    r"dist_token$|distillation_token$": "a distillation token",
    r"relative_position|rel_pos": "relative position embeddings",
    r"[qk]_norm\.": "norms of queries and keys",
    r"w12\.|w3\.|weights_in\.|weights_out\.|fc1_g\.": "gated MLPs (SwiGLU)",
    r"attn_pool\.|(^|\.)head\.(probe|attention)": "attention pooling",
}
# What belongs to a pretraining or a classifier, and not to the encoder.
LEFT_OUT = {
    r"^(head|head_drop|classifier|fc|pre_logits)\.": "classifier",
    r"^(dino_head|ibot_head|projection_head)\.": "head of the pretraining",
    r"^decoder|^mask_token$|embeddings\.mask_token$": "part of the pretraining",
    r"^pooler\.": "pooling layer that follows the final norm",
    r"^proj$": "projection to the space of the texts",
    r"embeddings\.position_ids$": "numbers of the positions",
}


@dataclass(frozen=True)
class Family:
    """Names of one family.

    Attributes:
        name: for messages.
        marker: name of the kernel of the patches; what stands before it is the encoder's prefix.
        block: pattern of the prefix of a block, with its number as group 1.
        outer: theirs -> timm's, of names outside of blocks: of a parameter, or of a layer.
        inner: the same, within a block; "attn.q", "attn.k", "attn.v" are joined to "attn.qkv".
        statistics: mean and standard deviation of the pixels that the published weights expect.
    """

    name: str
    marker: str
    block: str
    outer: Mapping[str, str]
    inner: Mapping[str, str]
    statistics: Statistics


_BLOCK = ("norm1", "norm2", "attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
FAMILIES = (
    Family(
        "timm",  # also DINO, DINOv2, MAE and MoCo v3 as they were published
        "patch_embed.proj.weight",
        r"blocks\.(\d+)\.",
        {
            n: n
            for n in ("patch_embed.proj", "cls_token", "pos_embed", "norm_pre", "norm", "fc_norm")
        },
        {name: name for name in (*_BLOCK, "ls1.gamma", "ls2.gamma")},
        IMAGENET,
    ),
    Family(
        "Hugging Face ViT",  # also DeiT, DINO, DINOv2 and MAE
        "embeddings.patch_embeddings.projection.weight",
        r"encoder\.layer\.(\d+)\.",
        {
            "embeddings.patch_embeddings.projection": "patch_embed.proj",
            "embeddings.cls_token": "cls_token",
            "embeddings.position_embeddings": "pos_embed",
            "layernorm": "norm",
        },
        {
            "layernorm_before": "norm1",
            "norm1": "norm1",
            "attention.attention.query": "attn.q",
            "attention.attention.key": "attn.k",
            "attention.attention.value": "attn.v",
            "attention.output.dense": "attn.proj",
            "layer_scale1.lambda1": "ls1.gamma",
            "layernorm_after": "norm2",
            "norm2": "norm2",
            "intermediate.dense": "mlp.fc1",
            "mlp.fc1": "mlp.fc1",
            "output.dense": "mlp.fc2",
            "mlp.fc2": "mlp.fc2",
            "layer_scale2.lambda1": "ls2.gamma",
        },
        IMAGENET,
    ),
    Family(
        "Hugging Face CLIP",
        "embeddings.patch_embedding.weight",
        r"encoder\.layers\.(\d+)\.",
        {
            "embeddings.patch_embedding": "patch_embed.proj",
            "embeddings.class_embedding": "cls_token",
            "embeddings.position_embedding.weight": "pos_embed",
            "pre_layrnorm": "norm_pre",  # their spelling
            "post_layernorm": "norm",
        },
        {
            "layer_norm1": "norm1",
            "self_attn.q_proj": "attn.q",
            "self_attn.k_proj": "attn.k",
            "self_attn.v_proj": "attn.v",
            "self_attn.out_proj": "attn.proj",
            "layer_norm2": "norm2",
            "mlp.fc1": "mlp.fc1",
            "mlp.fc2": "mlp.fc2",
        },
        CLIP,
    ),
    Family(
        "open_clip",  # also OpenAI's own names
        "conv1.weight",
        r"transformer\.resblocks\.(\d+)\.",
        {
            "conv1": "patch_embed.proj",
            "class_embedding": "cls_token",
            "positional_embedding": "pos_embed",
            "ln_pre": "norm_pre",
            "ln_post": "norm",
        },
        {
            "ln_1": "norm1",
            "attn.in_proj_weight": "attn.qkv.weight",
            "attn.in_proj_bias": "attn.qkv.bias",
            "attn.out_proj": "attn.proj",
            "ls_1.gamma": "ls1.gamma",
            "ln_2": "norm2",
            "mlp.c_fc": "mlp.fc1",
            "mlp.c_proj": "mlp.fc2",
            "ls_2.gamma": "ls2.gamma",
        },
        CLIP,
    ),
)


@dataclass(frozen=True)
class NameMap:
    """The names of a file and what they are.

    Attributes:
        family: whose names they are.
        sources: timm's name -> names in the file, joined on the first axis if there are several.
        left_out: names in the file -> why they are not used.
    """

    family: Family
    sources: dict[str, tuple[str, ...]]
    left_out: dict[str, str]


def map_names(names: Iterable[str]) -> NameMap:
    """Map the names in a file to timm's.

    Args:
        names: of all tensors.

    Raises:
        ValueError: they are of no known family, of several encoders, or some have no place in a
            ViT; the message lists them.

    Example:
        >>> from satmip_jax.models.published_names import map_names
        >>> names = ["visual.conv1.weight", "visual.ln_post.bias", "logit_scale"]
        >>> map_names(names).sources
        {'patch_embed.proj.weight': ('visual.conv1.weight',), 'norm.bias': ('visual.ln_post.bias',)}
    """
    names = sorted(names)
    _refuse_unsupported(names)
    family, prefix = _family(names)
    timm_names: dict[str, str] = {}
    left_out: dict[str, str] = {}
    unknown = []
    for name in names:
        short = name[len(prefix) :]
        if not name.startswith(prefix):
            left_out[name] = "outside of the image encoder"
        elif found := _timm_name(short, family):
            timm_names[found] = name
        elif reason := _first(LEFT_OUT, short):
            left_out[name] = reason
        else:
            unknown.append(name)
    if unknown:
        raise ValueError(
            f"{len(unknown)} tensors have no place in a plain ViT: {_listed(unknown)}: only "
            "encoders without other parts can be loaded"
        )
    return NameMap(family, _joined(timm_names), left_out)


def _family(names: list[str]) -> tuple[Family, str]:
    """Return the family whose marker is among the names, and the prefix before it."""
    found = [
        (family, name.removesuffix(family.marker))
        for family in FAMILIES
        for name in names
        if name == family.marker or name.endswith("." + family.marker)
    ]
    if not found:
        raise ValueError(
            f"it holds no ViT of a known family ({', '.join(f.name for f in FAMILIES)}): its "
            f"tensors are {_listed(names)}"
        )
    if len(found) > 1:
        raise ValueError(
            f"it holds {len(found)} encoders ({_listed([prefix for _, prefix in found])}): save "
            "only one of them, such as a DINO's teacher"
        )
    return found[0]


def _timm_name(name: str, family: Family) -> str:
    """Return timm's name of a parameter, "" if it has none."""
    table, prefix = family.outer, ""
    if match := re.match(family.block, name):
        table, prefix, name = family.inner, f"blocks.{int(match[1])}.", name[match.end() :]
    if name in table:
        return prefix + table[name]
    layer, _, kind = name.rpartition(".")
    known = kind in ("weight", "bias") and layer in table
    return f"{prefix}{table[layer]}.{kind}" if known else ""


def _joined(names: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Return the sources of each name; queries, keys and values are those of one layer."""
    sources: dict[str, tuple[str, ...]] = {}
    for name, source in names.items():
        match = re.fullmatch(r"(.*attn\.)[qkv](\.\w+)", name)
        if match is None:
            sources[name] = (source,)
            continue
        parts = [f"{match[1]}{part}{match[2]}" for part in "qkv"]
        if missing := [part for part in parts if part not in names]:
            raise ValueError(f"{source} is there, but {missing[0]} is not")
        sources[f"{match[1]}qkv{match[2]}"] = tuple(names[part] for part in parts)
    return sources


def _refuse_unsupported(names: Iterable[str]) -> None:
    reasons = sorted({reason for name in names if (reason := _first(UNSUPPORTED, name))})
    if reasons:
        raise ValueError(
            f"this encoder has {' and '.join(reasons)}, which the ViT here does not have: use a "
            "plain ViT (timm's augreg models, DINO, DINOv2 without registers, MAE, CLIP)"
        )


def _first(patterns: Mapping[str, str], name: str) -> str:
    return next((reason for pattern, reason in patterns.items() if re.search(pattern, name)), "")


def _listed(names: list[str]) -> str:
    quoted = [repr(name[:100]) for name in names[:5]]
    return ", ".join(quoted) + (", ..." if len(names) > 5 else "")
