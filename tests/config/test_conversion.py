"""Configs as JSON: stored ones load, unknown ones are refused, differences are listed."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from satmip_jax.config.conversion import differences, from_json, to_json, vary
from satmip_jax.config.defaults import default_config
from satmip_jax.errors import ConfigError


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists))
def test_an_untrusted_config_is_refused(value):
    with pytest.raises(ConfigError):
        from_json(json.dumps({"image": {"size": value}, "no such key": value}))


def test_a_stored_config_that_lacks_newer_options_reads_them_as_defaults():
    stored = default_config().to_dict()
    stored["method"] = {"name": "satmip", "embed_dim": 8}
    del stored["checkpoint"]
    config = from_json(json.dumps(stored))
    assert differences(default_config(), config) == [
        "method.embed_dim: 512 -> 8",
        "method.name: 'satmips' -> 'satmip'",
    ]


def test_an_unknown_option_of_a_method_is_refused():
    with pytest.raises(ConfigError, match="margin"):
        from_json(json.dumps({"method": {"margin": 0.2}}))


def test_differences_name_what_changed():
    old, new = default_config(), default_config()
    new.seed, new.augment.crop_scale = 3, (0.5, 1.0)
    assert differences(old, new) == [
        "augment.crop_scale: (0.08, 1.0) -> (0.5, 1.0)",
        "seed: 0 -> 3",
    ]
    assert differences(new, from_json(to_json(new))) == []


def test_a_varied_config_is_a_copy():
    config = default_config()
    varied = vary(config, {"method.name": "simclr", "seed": 3})
    assert (varied.method.name, varied.seed) == ("simclr", 3)
    assert (config.method.name, config.seed) == ("satmips", 0)
    with pytest.raises(KeyError):
        vary(config, {"method.margin": 0.2})
