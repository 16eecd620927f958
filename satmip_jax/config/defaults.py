"""Experiment configuration: every option with its default, in one place.

A file in `configs/` starts from `default_config()` and changes what it needs; unknown keys and
values of another type are refused by ml_collections before anything is compiled.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict, config_flags


class ConfigError(ValueError):
    """A configuration that cannot work; the message says what to change."""


def default_config() -> ConfigDict:
    """Return every option with its default, locked against unknown keys.

    Example:
        >>> config = default_config()
        >>> config.optimizer.learning_rate = 1e-3
        >>> config.optimiser = 1
        Traceback (most recent call last):
        ...
        AttributeError: ... optimizer ...
    """
    config = ConfigDict(
        {
            "seed": 0,
            "method": {
                "name": "satmips",  # see objectives.METHODS
                "coupled": True,  # satmips: SatMIP reuses one of SimCLR's two views
                "temperature": 0.1,  # NT-Xent
                "loss": "info_nce",  # of satmip: or "sigmoid", SigLIP's (logit_scale_init 10)
                "logit_scale_init": 1 / 0.07,  # learned from here
                "logit_bias_init": -10.0,  # of the sigmoid loss, learned from here
                "metadata_weight": 1.0,  # weight of the SatMIP loss in satmips
                "ssl_hidden": 4096,  # SimCLR projector: 3 layers
                "ssl_dim": 256,
                "embed_dim": 512,  # SatMIP: the space shared by images and metadata
                "geo_clusters": 100,  # metapred: clusters of places, one of which is to be told
            },
            "data": {
                "dir": "",  # written by `satmip prepare`
                "train_split": "train",
                "val_split": "val",
                "in_memory": False,  # hold the decoded train split in device memory
                "workers": 2,  # decoding processes; 0 decodes in threads
                "bad_records": 100,  # more than so many that cannot be read end the run
            },
            "image": {
                "encoder": "S/16",  # or 256x8x4/16: width, depth, heads; see models.vit
                "size": 224,  # side of a view, pixels
                "pool": "cls",
                "remat": False,
            },
            "metadata": {
                "encoder": "tabular",  # or "text"; see models.towers.METADATA_ENCODERS
                "fields": "all",  # "all", a group, "GSD+Time+Location", names joined by "+"
                "width": 192,
                "depth": 3,
                "heads": 8,
                "frequencies": 6,  # of the location on the sphere
                "field_dropout": 0.1,  # chance that a field goes missing in training
                "attention_dropout": 0.2,
                "ffn_dropout": 0.1,
                "follow_crop": True,  # gsd, pixel_size and location of the view, not of the image
                "caption_length": 400,  # tokens (bytes), text encoder
            },
            "augment": {
                "crop_scale": (0.08, 1.0),
                "hflip": True,
                "vflip": False,
                "rot90": False,
                "jitter": (0.4, 0.4, 0.4, 0.1),  # brightness, contrast, saturation, hue
                "jitter_p": 0.8,
                "grey_p": 0.2,
                "blur_p": 0.5,
            },
            "optimizer": {
                "learning_rate": 3e-3,
                "batch_size": 4096,  # global, images
                "images": 0,  # length of training in images seen; or:
                "epochs": 100.0,  # used where images is 0
                "warmup_epochs": 1.0,  # at most a tenth of the training
                "weight_decay": 0.1,
                "b1": 0.9,
                "b2": 0.98,
                "eps": 1e-8,
                "clip_norm": 0.0,  # 0: no clipping
            },
            "parallel": {
                "fsdp": 1,  # devices among which parameters and optimiser state are cut up
                "exchange": "gather",  # of embeddings, or "ring"; see objectives.contrastive
                "micro_batch": 0,  # images per device encoded at once; 0: all (see Forward.encode)
            },
            "dtype": "bfloat16",  # of the encoders' arithmetic; parameters stay float32
            "log_every": 10,  # steps
            "eval": {"every": 0, "batch_size": 512, "max_bank": 50_000},
            "checkpoint": {"every": 1000, "keep": 2},
        }
    )
    return config.lock()


def load_config(spec: str, overrides: Sequence[str] = ()) -> ConfigDict:
    """Load `configs/X.py[:arg]` and apply `--config.key=value` overrides.

    Raises:
        ConfigError: no such file, an unknown key, a value of the wrong type, or a config whose
            values cannot work together.
    """
    from absl import flags

    path, _, arg = spec.partition(":")
    get_config = _get_config(path)
    if arg and not inspect.signature(get_config).parameters:
        raise ConfigError(f"{path}: its get_config takes no argument, and {arg!r} was given")
    config = get_config(arg) if arg else get_config()
    values = flags.FlagValues()
    arguments = ["satmip", *overrides]
    try:
        config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=arguments)
        rest = values(arguments)[1:]
    except flags.UnrecognizedFlagError as error:
        raise ConfigError(f"unknown option {error.flagname!r}: write --config.key=value") from error
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{spec} {' '.join(overrides)}: {error}") from error
    if rest:
        raise ConfigError(f"unexpected argument {rest[0]!r}: write --config.key=value")
    config = values.config
    validate(config)
    return config


def load_recipes(
    spec: str, overrides: Sequence[str], methods: Sequence[str]
) -> dict[str, ConfigDict]:
    """What a config file makes of each method, all else as in `spec` and `overrides`.

    Returns:
        Method -> config, of those that the file takes as an argument, as the ones of satmip do.

    Example:
        >>> recipes = load_recipes("configs/eurosat.py:satmips,cpu", [], ["simclr", "satmip"])
        >>> recipes["satmip"].augment.jitter_p
        0.0
    """
    recipes = {}
    for method in methods:
        try:
            config = load_config(f"{spec}{',' if ':' in spec else ':'}{method}", overrides)
        except (ValueError, TypeError, KeyError):
            continue  # its argument means something else
        if config.method.name == method:
            recipes[method] = config
    return recipes


def _get_config(path: str) -> Callable[..., ConfigDict]:
    """The `get_config` of a config file. The file is a program: run only those you trust."""
    if not Path(path).is_file():
        raise ConfigError(f"no config file {path!r}; the ones that come with satmip: {known()}")
    module_spec = importlib.util.spec_from_file_location("satmip_config", path)
    if module_spec is None or module_spec.loader is None:
        raise ConfigError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise ConfigError(f"{path} defines no function get_config(arg)")
    return module.get_config


def config_folder() -> Path:
    """Folder of the configs that come with the package (checkout or installed wheel)."""
    here = Path(__file__).resolve().parents[1]
    return next(p for p in (here / "configs", here.parent / "configs") if p.is_dir())


def known() -> str:
    """Names of the configs that come with the package, for messages."""
    return ", ".join(sorted(f"{p.parent.name}/{p.name}" for p in config_folder().glob("*.py")))


# Numbers that must lie in a range: (lowest, below what), both as a user may write them.
_RANGES: dict[str, tuple[int, int | None]] = {
    "log_every": (1, None),
    "checkpoint.every": (1, None),
    "checkpoint.keep": (1, None),
    "eval.every": (0, None),
    "eval.batch_size": (1, None),
    "eval.max_bank": (1, None),
    "data.workers": (0, None),
    "data.bad_records": (0, None),
    "metadata.depth": (1, None),
    "metadata.heads": (1, None),
    "metadata.frequencies": (0, None),
    "metadata.caption_length": (2, None),
    "metadata.field_dropout": (0, 1),
    "metadata.attention_dropout": (0, 1),
    "metadata.ffn_dropout": (0, 1),
    "method.metadata_weight": (0, None),
    "optimizer.images": (0, None),
    "optimizer.epochs": (0, None),
    "optimizer.warmup_epochs": (0, None),
    "optimizer.weight_decay": (0, None),
    "optimizer.clip_norm": (0, None),
}


def validate(config: ConfigDict) -> None:
    """Raise ConfigError where values cannot work, before anything is compiled."""
    from satmip_jax.metadata.fields import select_fields
    from satmip_jax.metadata.schema import MAX_CENTRES
    from satmip_jax.models import METADATA_ENCODERS, parse_vit
    from satmip_jax.objectives import EXCHANGES, LOSSES, METHODS

    def require(condition: bool, message: str) -> None:
        if not condition:
            raise ConfigError(message)

    optimizer = config.optimizer
    require(
        config.method.name in METHODS,
        f"config.method.name is {config.method.name!r}; choose one of {', '.join(METHODS)}",
    )
    require(
        config.metadata.encoder in METADATA_ENCODERS,
        f"config.metadata.encoder is {config.metadata.encoder!r}; choose one of "
        f"{', '.join(METADATA_ENCODERS)}",
    )
    for key, choice, choices in (
        ("dtype", config.dtype, ("float32", "bfloat16")),
        ("method.loss", config.method.loss, LOSSES),
        ("parallel.exchange", config.parallel.exchange, EXCHANGES),
    ):
        require(
            choice in choices, f"config.{key} is {choice!r}; choose one of {', '.join(choices)}"
        )
    require(
        config.parallel.micro_batch >= 0,
        f"config.parallel.micro_batch is {config.parallel.micro_batch}; it must be 0 or more",
    )
    require(
        optimizer.batch_size >= 2,
        f"config.optimizer.batch_size is {optimizer.batch_size}; "
        "a contrastive loss needs at least 2 images",
    )
    require(
        2 <= config.method.geo_clusters <= MAX_CENTRES,
        f"config.method.geo_clusters is {config.method.geo_clusters}; "
        f"it must be from 2 to {MAX_CENTRES}",
    )
    require(
        optimizer.images > 0 or optimizer.epochs > 0,
        "training has no length: set config.optimizer.epochs or config.optimizer.images",
    )
    for key, (low, high) in _RANGES.items():
        value: Any = config
        for part in key.split("."):
            value = value[part]
        limits = f"at least {low}" if high is None else f"from {low} to below {high}"
        require(
            value >= low and (high is None or value < high),
            f"config.{key} is {value}; it must be {limits}",
        )
    for key in ("optimizer.learning_rate", "method.temperature", "method.logit_scale_init"):
        section, name = key.split(".")
        value = config[section][name]
        require(value > 0, f"config.{key} is {value}; it must be above 0")
    require(
        config.image.pool in ("cls", "mean"),
        f"config.image.pool is {config.image.pool!r}; choose cls or mean",
    )
    require(
        config.metadata.width % config.metadata.heads == 0,
        f"config.metadata.width is {config.metadata.width}, not a multiple of "
        f"config.metadata.heads, {config.metadata.heads}",
    )
    try:
        select_fields(config.metadata.fields)
        patch = parse_vit(config.image.encoder)[1]
    except ValueError as error:
        raise ConfigError(str(error)) from error
    require(
        config.image.size % patch == 0,
        f"config.image.size is {config.image.size}, not a multiple of the patch size {patch} "
        f"of {config.image.encoder!r}",
    )


def to_json(config: ConfigDict) -> str:
    """Return the config as indented JSON, stable across runs."""
    return json.dumps(config.to_dict(), indent=2, sort_keys=True)


def from_json(text: str) -> ConfigDict:
    """Rebuild a config written by `to_json`; keys unknown to this version are refused.

    Raises:
        ConfigError: not JSON, unknown keys, or values of another type.
    """
    config = default_config()
    try:
        stored = json.loads(text)
        for key, value in stored.items():  # a list is how JSON keeps a tuple
            if isinstance(value, dict):
                for name, entry in value.items():
                    config[key][name] = tuple(entry) if isinstance(entry, list) else entry
            else:
                config[key] = value
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(f"not a config of this version of satmip: {error}") from error
    return config


def differences(old: ConfigDict, new: ConfigDict) -> list[str]:
    """List `key: old -> new` for every value in which two configs differ."""

    def flat(config: ConfigDict) -> dict[str, Any]:
        return {
            f"{key}.{name}" if name else key: entry
            for key, value in config.to_dict().items()
            for name, entry in (value.items() if isinstance(value, dict) else [("", value)])
        }

    a, b = flat(old), flat(new)
    return [f"{key}: {a[key]!r} -> {b[key]!r}" for key in sorted(a) if a[key] != b[key]]


def parse_arg(
    arg: str | None, *, method: str, size: str, sizes: Sequence[str]
) -> tuple[str, str, set[str]]:
    """Split the text after `:` of a config into method, size and switches.

    Args:
        arg: names joined by ",", in any order; the last method and the last size named count.
        method, size: used where `arg` names none.
        sizes: what the config offers.

    Returns:
        The method, the size, and those of {"text", "runlocal"} that were named.

    Raises:
        ConfigError: a name that is none of these; the message lists what there is.

    Example:
        >>> parse_arg("simclr,b16", method="satmips", size="s16", sizes=["s16", "b16"])
        ('simclr', 'b16', set())
    """
    methods = ("simclr", "satmip", "satmips", "supervised", "metapred")
    switches = ("text", "runlocal")
    chosen: set[str] = set()
    for name in (arg or "").split(","):
        if name in methods:
            method = name
        elif name in sizes:
            size = name
        elif name in switches:
            chosen.add(name)
        elif name:
            raise ConfigError(
                f"unknown config argument {name!r}: choose a method ({', '.join(methods)}), a "
                f"size ({', '.join(sizes)}), and any of {', '.join(switches)}"
            )
    return method, size, chosen
