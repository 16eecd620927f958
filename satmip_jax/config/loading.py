"""Loading of config files: FILE:ARG, command-line overrides, and the config of each method."""

from __future__ import annotations

import difflib
import importlib.util
import inspect
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from ml_collections import ConfigDict, config_flags

from satmip_jax.config.validation import validate
from satmip_jax.errors import ConfigError
from satmip_jax.objectives import METHODS
from satmip_jax.runtime.paths import local_path

SWITCHES = ("text", "runlocal")  # other names in the argument of a config


class ArgumentError(ConfigError):
    """An argument that a config file does not know."""


def load_config(spec: str, overrides: Sequence[str] = ()) -> ConfigDict:
    """Load `FILE[:ARG]` and apply `--config.key=value` overrides.

    Args:
        spec: path of the file, or the name of a config that comes with the package, "eurosat" or
            "configs/eurosat.py"; and after ":" the argument of its `get_config`. The file is
            executed: load only files that you trust.
        overrides: as on the command line.

    Raises:
        ConfigError: no such file, an unknown key, a value of the wrong type, or values that cannot
            work.

    Example:
        >>> from satmip_jax.config.loading import load_config
        >>> load_config("fmow:simclr,b16", ["--config.seed=7"]).image.encoder
        'B/16'
    """
    from absl import flags

    path, _, arg = spec.partition(":")
    get_config = _get_config(path)
    if arg and not inspect.signature(get_config).parameters:
        raise ArgumentError(f"{path}: its get_config takes no argument, and {arg!r} was given")
    config = get_config(arg) if arg else get_config()
    for override in overrides:
        _check_key(config, override)
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
    """Load the config of each method from one file, with the same size, switches and overrides.

    Args:
        spec: as for `load_config`.
        overrides: as for `load_config`.
        methods: names of methods.

    Returns:
        Method -> config, for the methods that the file accepts as its argument.

    Raises:
        ConfigError: the file accepts a method and its recipe fails.

    Example:
        >>> from satmip_jax.config.loading import load_method_configs
        >>> load_method_configs("eurosat:cpu", [], ["satmip"])["satmip"].augment.jitter_p
        0.0
    """
    configs = {}
    for method in methods:
        recipe = f"{spec}{',' if ':' in spec else ':'}{method}"
        try:
            config = load_config(recipe, overrides)
        except Exception as error:
            if _is_about_argument(error, recipe.partition(":")[2], method):
                continue  # the argument of this file has another meaning
            raise ConfigError(
                f"{recipe}: the recipe of {method} fails: {type(error).__name__}: {error}"
            ) from error
        if config.method.name == method:
            configs[method] = config
    return configs


def _is_about_argument(error: Exception, arg: str, method: str) -> bool:
    """Whether a config file refused its argument; a file that does not use `parse_arg` names it."""
    if isinstance(error, KeyError):
        return error.args[:1] in ((arg,), (method,))
    return isinstance(error, ArgumentError) or any(
        repr(text) in str(error) for text in (arg, method)
    )


def _check_key(config: ConfigDict, override: str) -> None:
    """Raise ConfigError if an override names an option that does not exist; list those that do."""
    match = re.match(r"--?config\.([\w.]+)", override)
    section, path = config, "config"
    for name in match[1].split(".") if match else ():
        if not isinstance(section, ConfigDict):
            return  # absl refuses it
        if name not in section:
            nearest = sorted(section, key=lambda option: -_similarity(name, option))
            elsewhere = [
                f"config.{key}.{name}"
                for key, value in config.items()
                if isinstance(value, ConfigDict) and name in value
            ]
            hint = f"; did you mean {' or '.join(elsewhere)}?" if elsewhere else ""
            raise ConfigError(f"{path} has no {name}; it has {', '.join(nearest)}{hint}")
        section, path = section[name], f"{path}.{name}"


def _similarity(name: str, option: str) -> float:
    """Return how near two names are, from 0 to 1; an abbreviation such as "lr" is nearest."""
    initials = "".join(word[:1] for word in option.split("_"))
    return 1.0 if name == initials else difflib.SequenceMatcher(None, name, option).ratio()


def find_config(path: str) -> Path | None:
    """Return the config file of that path or name, or None.

    Args:
        path: a file; or, anywhere, the name of one that comes with the package: "eurosat",
            "eurosat.py" or "configs/eurosat.py".
    """
    file = local_path(path, "--config")
    shipped = config_folder() / f"{file.stem}.py"
    if not shipped.is_file() or str(file.parent) not in (".", "configs"):
        return file if file.is_file() else None
    return file if file.suffix == ".py" and file.is_file() else shipped


def _get_config(name: str) -> Callable[..., ConfigDict]:
    """Execute a config file and return its `get_config`."""
    path = find_config(name)
    if path is None:
        raise ConfigError(f"no config file {name!r}; satmip comes with {_shipped()}")
    module_spec = importlib.util.spec_from_file_location("satmip_config", path)
    if module_spec is None or module_spec.loader is None:
        raise ConfigError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise ConfigError(f"{path} defines no function get_config(arg)")
    return module.get_config


def config_folder() -> Path:
    """Return the folder of the configs that come with the package, in a checkout or a wheel."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "configs"  # in a wheel
    return inside if inside.is_dir() else package.parent / "configs"


def _shipped() -> str:
    """Names of the configs that come with the package, for messages."""
    return ", ".join(sorted(f"{p.parent.name}/{p.name}" for p in config_folder().glob("*.py")))


def parse_arg(
    arg: str | None, *, method: str, size: str, sizes: Sequence[str]
) -> tuple[str, str, set[str]]:
    """Parse the text after ":" of a config into method, size and switches.

    Args:
        arg: names joined by ",", in any order; of several methods or sizes the last counts.
        method: used if `arg` names none.
        size: used if `arg` names none.
        sizes: those that the config offers.

    Returns:
        The method, the size, and the switches, out of SWITCHES.

    Raises:
        ConfigError: an unknown name; the message lists the valid ones.

    Example:
        >>> from satmip_jax.config import parse_arg
        >>> parse_arg("simclr,b16", method="satmips", size="s16", sizes=["s16", "b16"])
        ('simclr', 'b16', set())
    """
    switches: set[str] = set()
    for name in (arg or "").split(","):
        if name in METHODS:
            method = name
        elif name in sizes:
            size = name
        elif name in SWITCHES:
            switches.add(name)
        elif name:
            raise ArgumentError(
                f"unknown config argument {name!r}: choose a method ({', '.join(METHODS)}), a "
                f"size ({', '.join(sizes)}), and any of {', '.join(SWITCHES)}"
            )
    return method, size, switches
