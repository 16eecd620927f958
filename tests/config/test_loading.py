"""Configs: every one that ships loads, overrides are typed, mistakes are named."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from satmip_jax.config.conversion import differences, from_json, to_json
from satmip_jax.config.defaults import default_config
from satmip_jax.config.loading import config_folder, load_config, load_method_configs, parse_arg
from satmip_jax.errors import ConfigError
from satmip_jax.objectives import METHODS

FOLDER = config_folder()


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
@pytest.mark.parametrize("method", METHODS)
def test_every_config_loads_for_every_method(path, method):
    config = load_config(f"{path}:{method}")
    assert config.method.name == method
    assert differences(config, from_json(to_json(config))) == []


def test_sizes_and_switches_of_a_config():
    config = load_config(f"{FOLDER / 'fmow.py'}:b16,satmip,text")
    assert (config.image.encoder, config.method.name) == ("B/16", "satmip")
    assert config.metadata.encoder == "text"
    # SLIP's rule: 3e-3 at a batch of 4096
    assert config.optimizer.learning_rate == pytest.approx(3e-3)
    local = load_config(f"{FOLDER / 'fmow.py'}:runlocal")
    assert local.optimizer.batch_size * local.optimizer.learning_rate < 1e-2


def test_the_recipe_of_each_method(tmp_path):
    path = FOLDER / "eurosat.py"
    recipes = load_method_configs(f"{path}:satmips,ti8", ["--config.seed=7"], list(METHODS))
    assert recipes.keys() == METHODS.keys()
    assert recipes["satmip"] == load_config(f"{path}:satmip,ti8", ["--config.seed=7"])
    assert recipes["satmip"].augment != recipes["satmips"].augment
    fixed = tmp_path / "fixed.py"
    fixed.write_text("from satmip_jax.config.defaults import default_config as get_config\n")
    assert load_method_configs(str(fixed), [], list(METHODS)) == {}
    with pytest.raises(ConfigError, match=r"takes no argument, and 'simclr' was given"):
        load_config(f"{fixed}:simclr")


def test_overrides_keep_their_types():
    config = load_config(
        str(FOLDER / "eurosat.py"),
        ["--config.optimizer.learning_rate=2e-4", "--config.seed=7", "--config.data.dir=x"],
    )
    assert (config.optimizer.learning_rate, config.seed, config.data.dir) == (2e-4, 7, "x")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["--config.optimizer.learning_rat=1"], "learning_rat"),
        (["--confg.seed=1"], "confg"),
        (["--config.seed=lots"], "lots"),
        (["seed=1"], "unexpected argument 'seed=1'"),
        (["--config.method.name=clip"], "'clip'; choose one of simclr, satmip"),
        (["--config.image.size=60"], "60, not a multiple of the patch size 8"),
        (["--config.image.encoder=huge/8"], "huge/8"),
        (["--config.metadata.fields=Weather"], "Weather"),
        (["--config.metadata.encoder=mlp"], "'mlp'; choose one of tabular, text"),
        (["--config.optimizer.batch_size=1"], "at least 2 images"),
        (["--config.optimizer.images=0", "--config.optimizer.epochs=0"], "no length"),
        (["--config.checkpoint.every=0"], "config.checkpoint.every is 0"),
        (["--config.dtype=float16"], "'float16'; choose one of float32, bfloat16"),
        (["--config.image.pool=max"], "'max'; choose one of cls, mean"),
        (["--config.metadata.heads=7"], "96, not a multiple of config.metadata.heads, 7"),
        (["--config.metadata.heads=0"], "config.metadata.heads is 0; it must be at least 1"),
        (["--config.metadata.field_dropout=1.5"], "1.5; it must be from 0 to below 1"),
        (["--config.optimizer.learning_rate=-1"], "-1.0; it must be above 0"),
        (["--config.optimizer.weight_decay=nan"], "nan; it must be at least 0"),
    ],
)
def test_mistakes_are_named(overrides, message):
    with pytest.raises(ConfigError) as caught:
        load_config(str(FOLDER / "eurosat.py"), overrides)
    assert message in str(caught.value)


def test_files_that_are_no_configs(tmp_path):
    with pytest.raises(ConfigError, match=r"no config file 'nope.py'.*configs/fmow.py"):
        load_config("nope.py")
    empty = tmp_path / "empty.py"
    empty.write_text("")
    with pytest.raises(ConfigError, match="no function get_config"):
        load_config(str(empty))
    with pytest.raises(ConfigError, match=r"unknown config argument 'x16'.*ti16, s16"):
        load_config(f"{FOLDER / 'fmow.py'}:x16")


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists))
def test_a_strangers_config_json_is_refused_or_loaded(value):
    import json

    with pytest.raises(ConfigError):
        from_json(json.dumps({"image": {"size": value}, "no such key": value}))


def test_differences_name_what_changed():
    old, new = default_config(), default_config()
    new.seed, new.augment.crop_scale = 3, (0.5, 1.0)
    assert differences(old, new) == [
        "augment.crop_scale: (0.08, 1.0) -> (0.5, 1.0)",
        "seed: 0 -> 3",
    ]
    assert parse_arg(None, method="simclr", size="a", sizes=["a"]) == ("simclr", "a", set())
