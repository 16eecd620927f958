"""Pretraining methods. A new method is one file here and one line in METHODS."""

from __future__ import annotations

from ml_collections import ConfigDict

from satmip_jax.errors import ConfigError
from satmip_jax.losses.contrastive import EXCHANGES
from satmip_jax.objectives.base import Forward, Method
from satmip_jax.objectives.guided import Guided
from satmip_jax.objectives.metapred import MetaPred
from satmip_jax.objectives.options import Option, union_of_options
from satmip_jax.objectives.satmip import SatMIP
from satmip_jax.objectives.satmips import SatMIPS
from satmip_jax.objectives.scores import Scores
from satmip_jax.objectives.simclr import SimCLR
from satmip_jax.objectives.supervised import Supervised

METHODS: dict[str, type[Method]] = {
    "simclr": SimCLR,
    "satmip": SatMIP,
    "satmips": SatMIPS,
    "supervised": Supervised,
    "metapred": MetaPred,
    "guided": Guided,
}


def build_method(config: ConfigDict) -> Method:
    """Return the method that `config.method.name` names, with its options.

    Raises:
        ConfigError: no such method, or an option is not valid.

    Example:
        >>> from satmip_jax.config import default_config
        >>> from satmip_jax.objectives import build_method
        >>> build_method(default_config()).negatives(256)
        {'simclr': 510, 'satmip': 255}
    """
    name = config.method.name
    if name not in METHODS:
        raise ConfigError(f"config.method.name is {name!r}; choose one of {', '.join(METHODS)}")
    method = METHODS[name]
    options = method.options_class.from_section(config.method.to_dict())
    return method(options, config.metadata.fields)


def method_options() -> dict[str, Option]:
    """Return the options of all methods by name: the keys of `config.method` beside "name".

    Raises:
        ValueError: two methods declare an option of the same name differently.
    """
    return union_of_options({name: method.options_class for name, method in METHODS.items()})


def method_title(name: str) -> str:
    """Return the title of a method; of any other name, the name itself.

    Example:
        >>> from satmip_jax.objectives import method_title
        >>> method_title("simclr")
        'SimCLR'
    """
    return METHODS[name].title if name in METHODS else name


__all__ = [
    "EXCHANGES",
    "METHODS",
    "Forward",
    "Method",
    "Option",
    "Scores",
    "build_method",
    "method_options",
    "method_title",
]
