"""The command `satmip prepare`: one subcommand per source, with the options that it declares."""

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from satmip_jax.cli import cli
from satmip_jax.data.shard_dataset import ShardDataset
from satmip_jax.metadata.record import Problems
from satmip_jax.metadata.schema import Schema
from satmip_jax.prepare.run import PrepareError, prepare
from satmip_jax.sources.registry import SOURCES
from tests.sources.toy import ENTRY, Toy


@pytest.fixture
def toy(monkeypatch):
    monkeypatch.setitem(SOURCES, "toy", ENTRY)


def run(*arguments):
    """Run `satmip prepare` in this process."""
    return CliRunner().invoke(cli, ["prepare", *map(str, arguments)], terminal_width=200)


def test_the_list_of_sources_imports_none():
    code = (
        "import sys, satmip_jax.cli as c\n"
        "from click.testing import CliRunner\n"
        "run = CliRunner().invoke(c.cli, ['prepare', '--help'])\n"
        "assert run.exit_code == 0 and 'synthetic' in run.output, run.output\n"
        "light = {'base', 'registry'}\n"
        "loaded = {m.split('.')[2] for m in sys.modules if m.startswith('satmip_jax.sources.')}\n"
        "heavy = {'jax', 'numpy', 'cv2', 'pyarrow', 'tensorflow_datasets'} & sys.modules.keys()\n"
        "assert loaded == light and not heavy, (loaded, heavy)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_help_lists_the_sources(toy):
    printed = run("--help").output
    for name, entry in SOURCES.items():
        assert any(name in line and entry.title in line for line in printed.splitlines()), name


def test_help_of_a_source_shows_common_options_and_its_own(toy):
    common, _, of_source = run("toy", "--help").output.partition("Options of toy:")
    for option in ("--source", "--out", "--image-size", "--limit", "--runner", "--workers"):
        assert option in common
    assert "A folder; its files are not read. May be repeated.  [required]" in common
    assert "Side of the stored squares, pixels.  [default: 8]" in common
    assert "--context-ratio" not in common  # it has no boxes
    assert "--count INTEGER         Number of images.  [default: 6]" in of_source
    assert "--shade [dark|light]" in of_source
    assert "--factor FLOAT          Factor of the ground sampling distance." in of_source
    assert "--marked / --no-marked" in of_source
    assert "--notes PATH" in of_source
    assert "--context-ratio FLOAT" in run("fmow", "--help").output
    assert "tfds:NAME" in run("eurosat", "--help").output
    assert "tfds:NAME" not in run("fmow", "--help").output


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_has_help(name):
    result = run(name, "--help")
    assert result.exit_code == 0, result.exception
    assert "`" not in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("toy", "--hue", "red"),
            "(options of toy: --count, --shade, --factor, --marked, --notes)",
        ),
        (("toy", "--shade", "grey"), "'grey' is not one of 'dark', 'light' (options of toy: --co"),
        (("toy", "--count", "few"), "'few' is not a valid integer (options of toy: --count, "),
        (("toy", "--limit", "0"), "0 is not in the range"),
        (("toy",), "Missing option '--out'"),
        (("toys",), "unknown source 'toys': choose one of fmow, eurosat, "),
    ],
)
def test_wrong_options_are_one_message(arguments, message, toy, tmp_path):
    result = run(*arguments, "--source", tmp_path)
    assert result.exit_code == 2
    assert message in result.output


def test_a_new_source_is_one_file_and_one_line(toy, tmp_path):
    arguments = ("toy", "--source", tmp_path, "--out", tmp_path / "out", "--workers", 0)
    result = run(*arguments, "--shade", "light", "--count", 9, "--factor", 3, "--marked")
    assert result.exit_code == 0, result.exception
    assert "splits: the source" in result.output
    data = ShardDataset(tmp_path / "out", "train")
    assert data.ids(range(6)) == ["0.png", "1.png", "3.png", "4.png", "6.png", "7.png"]
    assert data[1]["metadata"].values["gsd"] == (6.0, 6.0)
    schema = Schema.load(tmp_path / "out" / "schema.json")
    assert (schema.image_size, schema.classes) == (8, ("even", "odd"))
    assert schema.class_weights == {"parity_f1": (0.5, 2.0)}
    assert min(schema.image_mean) > 0.8
    assert schema.provenance["source.shade"] == "light"
    # options that decide the data are compared when it is resumed
    result = run(*arguments, "--shade", "dark", "--count", 9, "--factor", 3, "--marked")
    assert "source.shade was 'light' and is now 'dark'" in str(result.exception)


def test_options_of_a_source_differ_from_the_common_ones(monkeypatch):
    class Clash(Toy):
        def __init__(self, paths, limit: int = 1):
            """Make a source with an option of all sources."""

    monkeypatch.setitem(SOURCES, "toy", ENTRY)
    monkeypatch.setattr("tests.sources.toy.Toy", Clash)
    assert "toy: --limit is an option of every source" in str(run("toy", "--help").exception)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"score": {"even": 1.0, "odd": 1.0}}, "the name of the metric 'score' must end in _f1"),
        ({"parity_f1": {"even": 1.0}}, "parity_f1 has no weight for 'odd'"),
    ],
)
def test_class_weights_that_cannot_be_saved(weights, message, tmp_path):
    source = Toy([tmp_path])
    source.class_weights = weights
    with pytest.raises(PrepareError, match=message):
        prepare(source, tmp_path / "out", image_size=8, workers=0, progress=False)
    assert not (tmp_path / "out").exists()


def test_sources_without_class_weights_have_none_in_the_schema(tmp_path):
    source = Toy([tmp_path])
    source.class_weights = {}
    prepare(source, tmp_path / "out", image_size=8, workers=0, progress=False)
    assert "class_weights" not in json.loads((tmp_path / "out" / "schema.json").read_text())


def test_one_flag_chooses_splits_or_draws_shares(toy, tmp_path):
    images = Toy([tmp_path])
    for name, ref in zip(("a.png", "b.png"), images.refs(), strict=False):
        (tmp_path / name).write_bytes(images.read(ref, Problems()).image)
    (tmp_path / "metadata.csv").write_text("path,split\na.png,train\nb.png,val\n")
    arguments = ("folder", "--source", tmp_path, "--workers", 0)

    def splits(out, value):
        result = run(*arguments, "--out", out, "--splits", value)
        assert result.exit_code == 0, result.exception
        return Schema.load(out / "schema.json").splits

    assert splits(tmp_path / "one", "train") == {"train": 1}
    assert splits(tmp_path / "two", "train=1.0") == {"train": 2}
    result = run("toy", "--source", tmp_path, "--out", tmp_path / "x", "--splits", "train=1")
    assert "no split 'train=1': there are train, val" in str(result.exception)


def test_names_of_splits(tmp_path):
    def prepare_splits(splits):
        arguments = ["synthetic", "--source", tmp_path / "scenes", "--size", 32]
        arguments += ["--train", 2, "--val", 2, "--workers", 0, "--image-size", 32]
        return run(*arguments, "--out", tmp_path / "out", "--splits", splits)

    for wrong in ("train,train", "train,", "train,,val", ""):
        result = prepare_splits(wrong)
        assert f"--splits {wrong!r}: name each split once, as in train,val" in str(result.exception)
    assert prepare_splits("val, train").exit_code == 0
    assert Schema.load(tmp_path / "out" / "schema.json").splits == {"train": 2, "val": 2}
