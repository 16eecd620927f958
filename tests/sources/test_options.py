"""Options that sources declare in their constructors."""

import pickle
from functools import partial
from pathlib import Path

import pytest

from satmip_jax.runtime.options import argument_help
from satmip_jax.sources.base import Source, SourceError, source_options
from satmip_jax.sources.registry import SOURCES, open_source, source_class
from satmip_jax.sources.tfds import ThroughTFDS
from tests.sources.toy import ENTRY, Toy


@pytest.fixture
def toy(monkeypatch):
    monkeypatch.setitem(SOURCES, "toy", ENTRY)


def test_options_come_from_signature_and_docstring():
    options = source_options(Toy)
    assert list(options) == ["count", "shade", "factor", "marked", "notes"]
    assert [option.types for option in options.values()] == [
        (int,),
        (str,),
        (float,),
        (bool,),
        (str, Path),
    ]
    assert options["shade"].choices == ("dark", "light")
    assert options["factor"].help == "Factor of the ground sampling distance."
    assert (options["count"].default, options["notes"].default) == (6, None)
    assert options["marked"].flag == "--marked"


@pytest.mark.parametrize("name", SOURCES)
def test_every_option_of_every_source_is_described(name):
    cls = source_class(name)
    assert issubclass(cls, Source)
    assert argument_help(cls)["paths"]
    for option in source_options(cls).values():
        assert option.help.endswith("."), option
        assert option.types, option


def test_inherited_constructors_keep_their_help():
    assert source_options(source_class("resisc45")).keys() == {"splits_folder", "seed"}
    assert "seed" in source_options(partial(ThroughTFDS, source_class("resisc45")))
    assert argument_help(type("Plain", (Toy,), {})) == argument_help(Toy)
    assert argument_help(type("Silent", (), {"__init__": lambda self: None})) == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"colour": 1}, r"source 'toy': no option --colour \(its options: --count, --shade, "),
        ({"shade": "grey"}, "--shade 'grey': must be one of dark, light"),
        ({"count": "6"}, "--count '6': must be int"),
        ({"count": 1.5}, r"--count 1\.5: must be int"),
        ({"count": True}, "--count True: must be int"),
        ({"count": None}, "--count None: must be int"),
        ({"marked": 1}, "--marked 1: must be bool"),
        ({"factor": "2"}, "--factor '2': must be float"),
        ({"notes": 3}, "--notes 3: must be str or Path"),
    ],
)
def test_wrong_options_are_rejected(options, message, toy, tmp_path):
    with pytest.raises(SourceError, match=message):
        open_source("toy", [tmp_path], **options)


def test_valid_options_are_kept_with_the_data(toy, tmp_path):
    source = open_source("toy", [tmp_path], factor=2, notes=tmp_path / "x", shade="light")
    assert source.options == {
        "count": 6,
        "shade": "light",
        "factor": 2,
        "marked": False,
        "notes": str(tmp_path / "x"),
    }
    assert pickle.loads(pickle.dumps(source)).refs() == source.refs()
    assert source.paths == [tmp_path]
    assert (source.context_ratio, source.skipped, source.generates) == (None, {}, False)


def test_unknown_sources_and_paths(tmp_path):
    with pytest.raises(SourceError, match="unknown source 'toy': choose one of fmow, eurosat"):
        open_source("toy", [tmp_path])
    with pytest.raises(SourceError, match=r"no file or folder at .*nowhere"):
        open_source("fgsc23", [tmp_path / "nowhere"])
    with pytest.raises(TypeError, match="abstract"):
        type("Half", (Source,), {"refs": lambda self: []})([tmp_path])
