"""Declared options: defaults, limits, inheritance and agreement between methods."""

from dataclasses import dataclass, field

import pytest

from satmip_jax.config.defaults import default_config
from satmip_jax.errors import ConfigError
from satmip_jax.objectives import METHODS, build_method, method_options
from satmip_jax.objectives.options import MethodOptions, option, union_of_options
from satmip_jax.objectives.satmip import SatMIPOptions
from satmip_jax.objectives.satmips import SatMIPSOptions
from satmip_jax.objectives.simclr import SimCLROptions

# keys and defaults of stored configs, and the newer ones of `guided`: they must keep their meaning
STORED = {
    "guide_auxiliary": "sub_region",
    "guide_adversarial": "year",
    "guide_weight": 0.1,
    "guide_reversal": 1.0,
    "guide_equalize": True,
    "guide_hidden": 512,
    "coupled": True,
    "temperature": 0.1,
    "loss": "info_nce",
    "logit_scale_init": 1 / 0.07,
    "logit_bias_init": -10.0,
    "metadata_weight": 1.0,
    "ssl_hidden": 4096,
    "ssl_dim": 256,
    "embed_dim": 512,
    "geo_clusters": 100,
}


def test_default_config_has_the_options_of_all_methods():
    assert default_config().method.to_dict() == {"name": "satmips", **STORED}


def test_options_inherit_from_the_methods_they_combine():
    names = {declared.name for declared in SatMIPSOptions.declared()}
    combined = {d.name for d in (*SimCLROptions.declared(), *SatMIPOptions.declared())}
    assert names == combined | {"coupled", "metadata_weight"}


def test_a_method_gets_its_options_typed():
    config = default_config()
    config.method.ssl_dim = 64
    method = build_method(config)
    assert method.options == SatMIPSOptions(ssl_dim=64)
    assert method.simclr.options.ssl_dim == 64


def test_options_that_a_stored_section_lacks_have_their_defaults():
    assert SimCLROptions.from_section({"ssl_dim": 8, "geo_clusters": 3}) == SimCLROptions(ssl_dim=8)


@dataclass(frozen=True)
class Limited(MethodOptions):
    """One option of each kind of limit."""

    weight: float = option(1.0, "a weight", at_least=0)
    scale: float = option(1.0, "a scale", above=0)
    bins: int = option(4, "bins", at_least=2, at_most=8)
    kind: str = option("a", "a kind", choices=("a", "b"))
    free: float = option(0.0, "any number")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"weight": -1.0}, "config.method.weight is -1.0; it must be at least 0"),
        ({"weight": float("nan")}, "config.method.weight is nan; it must be at least 0"),
        ({"scale": 0.0}, "config.method.scale is 0.0; it must be above 0"),
        ({"bins": 9}, "config.method.bins is 9; it must be from 2 to 8"),
        ({"kind": "c"}, "config.method.kind is 'c'; choose one of a, b"),
    ],
)
def test_values_outside_their_limits_are_refused(values, message):
    with pytest.raises(ConfigError) as caught:
        Limited(**values)
    assert message in str(caught.value)


def test_values_at_their_limits_are_accepted():
    Limited(weight=0.0, scale=1e-9, bins=8, kind="b", free=-1e9)


def test_every_option_can_be_listed_in_a_reference():
    """One line each; defaults are valid and of the type that is declared."""
    for method in METHODS.values():
        for declared in method.options_class.declared():
            assert declared.description
            assert "\n" not in declared.description
            declared.check(declared.default)
    limits = {name: declared.limits for name, declared in method_options().items()}
    assert limits["geo_clusters"] == "from 2 to 4096"
    assert limits["loss"] == "one of info_nce, sigmoid"
    assert limits["logit_bias_init"] == ""


def test_methods_must_agree_on_a_shared_option():
    @dataclass(frozen=True)
    class Other(MethodOptions):
        temperature: float = option(0.5, "temperature of the loss", above=0)

    declarations = {"simclr": SimCLROptions, "satmips": SatMIPSOptions}
    assert "temperature" in union_of_options(declarations)
    with pytest.raises(ValueError, match="'simclr' and 'other' declare the option 'temperature'"):
        union_of_options(declarations | {"other": Other})


def test_fields_without_a_declaration_are_refused():
    @dataclass(frozen=True)
    class Undeclared(MethodOptions):
        width: int = field(default=3)

    with pytest.raises(TypeError, match=r"declare Undeclared.width by option"):
        Undeclared()
