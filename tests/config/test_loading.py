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
        ("--config.optimizer.learning_rat=1", "has no learning_rat; it has learning_rate, "),
        ("--config.optimizer.lr=1", "config.optimizer has no lr; it has learning_rate, "),
        ("--config.optimzer.lr=1", "config has no optimzer; it has optimizer, "),
        ("--config.batch_size=1", "did you mean config.eval.batch_size or config.optim"),
        ("--config.seed.x=1", "seed"),
        ("--confg.seed=1", "confg"),
        ("--config.seed=lots", "lots"),
        ("seed=1", "unexpected argument 'seed=1'"),
    ],
)
def test_wrong_overrides_are_named(override, message):
    with pytest.raises(ConfigError) as caught:
        load_config(str(FOLDER / "eurosat.py"), [override])
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["eurosat", "eurosat.py", "configs/eurosat.py"])
def test_a_config_is_found_by_name_from_any_folder(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "eurosat").mkdir()  # perhaps the data
    assert load_config(f"{name}:simclr,ti8") == load_config(f"{FOLDER / 'eurosat.py'}:simclr,ti8")
    with pytest.raises(ConfigError, match="no config file 'elsewhere/eurosat"):
        load_config("elsewhere/eurosat.py")


def test_a_file_here_comes_before_one_of_the_package(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "eurosat.py").write_text(
        "from satmip_jax.config import default_config\n"
        "def get_config():\n"
        "    config = default_config()\n"
        "    config.seed = 77\n"
        "    return config\n"
    )
    assert load_config("eurosat.py").seed == 77


RECIPES = """
from satmip_jax.config import default_config, parse_arg
def get_config(arg=None):
    method, _, _ = parse_arg(arg, method="satmips", size="s", sizes=["s"])
    config = default_config()
    config.method.name = method
    if method == "satmip":
        {line}
    return config
"""


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("config.optimizer.learning_rat = 1", "recipe of satmip fails: AttributeError: .*learning"),
        ("config.optimizer.batch_size = 1", "recipe of satmip fails: .*at least 2 images"),
        ("config.image.size = 'big'", "recipe of satmip fails: TypeError"),
    ],
)
def test_an_error_in_the_recipe_of_a_method_is_not_passed_over(tmp_path, line, message):
    path = tmp_path / "recipes.py"
    path.write_text(RECIPES.format(line=line))
    with pytest.raises(ConfigError, match=message):
        load_method_configs(str(path), [], ["satmips", "satmip"])
    assert load_method_configs(str(path), [], ["satmips", "simclr"]).keys() == {"satmips", "simclr"}


@pytest.mark.parametrize("body", ["{'a': 1}[arg]", "int(arg)"])
def test_an_argument_of_another_meaning_is_no_recipe(tmp_path, body):
    path = tmp_path / "other.py"
    path.write_text(
        "from satmip_jax.config import default_config\n"
        "def get_config(arg):\n"
        f"    {body}\n"
        "    return default_config()\n"
    )
    assert load_method_configs(str(path), [], ["satmip"]) == {}


def test_files_that_are_not_configs(tmp_path):
    with pytest.raises(ConfigError, match=r"no config file 'nope.py'.*configs/fmow.py"):
        load_config("nope.py")
    empty = tmp_path / "empty.py"
    empty.write_text("")
    with pytest.raises(ConfigError, match="no function get_config"):
        load_config(str(empty))
    with pytest.raises(ConfigError, match=r"unknown config argument 'x16'.*ti16, s16"):
        load_config(f"{FOLDER / 'fmow.py'}:x16")
