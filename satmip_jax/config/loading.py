"""Loading of config files: FILE:ARG, overrides, and the recipe of each method."""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path

from ml_collections import ConfigDict, config_flags

from satmip_jax.config.validation import validate
from satmip_jax.errors import ConfigError


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


def load_method_configs(
    spec: str, overrides: Sequence[str], methods: Sequence[str]
) -> dict[str, ConfigDict]:
    """What a config file makes of each method, all else as in `spec` and `overrides`.

    Returns:
        Method -> config, of those that the file takes as an argument, as the ones of satmip do.

    Example:
        >>> recipes = load_method_configs("configs/eurosat.py:satmips,cpu", [], ["satmip"])
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
