"""Config files: every one that ships loads for every method, mistakes are named."""

import pytest

from satmip_jax.config.conversion import differences, from_json, to_json
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


def test_the_argument_of_a_config_is_parsed_by_method_size_and_switches():
    def parse(arg):
        return parse_arg(arg, method="simclr", size="a", sizes=["a", "b"])

    assert parse(None) == ("simclr", "a", set())
    for method in METHODS:
        assert parse(f"b,{method},text,runlocal") == (method, "b", {"text", "runlocal"})
    assert parse("satmip,a,b,metapred") == ("metapred", "b", set())  # the last of each counts


def test_the_config_of_each_method(tmp_path):
    path = FOLDER / "eurosat.py"
    configs = load_method_configs(f"{path}:satmips,ti8", ["--config.seed=7"], list(METHODS))
    assert configs.keys() == METHODS.keys()
    assert configs["satmip"] == load_config(f"{path}:satmip,ti8", ["--config.seed=7"])
    assert configs["satmip"].augment != configs["satmips"].augment
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
    ("override", "message"),
    [
        ("--config.optimizer.learning_rat=1", "learning_rat"),
        ("--confg.seed=1", "confg"),
        ("--config.seed=lots", "lots"),
        ("seed=1", "unexpected argument 'seed=1'"),
    ],
)
def test_wrong_overrides_are_named(override, message):
    with pytest.raises(ConfigError) as caught:
        load_config(str(FOLDER / "eurosat.py"), [override])
    assert message in str(caught.value)


def test_files_that_are_not_configs(tmp_path):
    with pytest.raises(ConfigError, match=r"no config file 'nope.py'.*configs/fmow.py"):
        load_config("nope.py")
    empty = tmp_path / "empty.py"
    empty.write_text("")
    with pytest.raises(ConfigError, match="no function get_config"):
        load_config(str(empty))
    with pytest.raises(ConfigError, match=r"unknown config argument 'x16'.*ti16, s16"):
        load_config(f"{FOLDER / 'fmow.py'}:x16")
