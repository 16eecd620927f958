"""Preparation of images that are not 8-bit RGB: rules are needed, printed, stored and compared."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from rich.console import Console

from satmip_jax.cli import cli
from satmip_jax.data.images import decode
from satmip_jax.data.shard_dataset import ShardDataset
from satmip_jax.metadata.schema import Schema
from satmip_jax.prepare.run import PrepareError
from tests.data.tiffs import write_tiff
from tests.prepare.fake_source import FakeSource, contents, make

REFLECTANCE = np.full((24, 24, 13), 1000, np.uint16)
REFLECTANCE[:, :, 3] = 3000  # the fourth band
ONE = {3: {"image": write_tiff(REFLECTANCE)}}
ALL = {i: {"image": write_tiff(REFLECTANCE)} for i in range(13)}
REASON = "13 bands of uint16: give --bands R,G,B (such as --bands 4,3,2) and --scale LOW,HIGH"


def test_images_without_a_rule_are_bad(tmp_path):
    report = make(tmp_path / "out", FakeSource(changes=ONE))
    assert [(split, name) for split, name, _ in report.bad] == [("train", "train/003")]
    assert report.bad[0][2].startswith(REASON)
    assert report.rules() == []
    with pytest.raises(PrepareError, match=r"could be used \(13 x 13 bands of uint16: give --ban"):
        make(tmp_path / "none", FakeSource(changes=ALL))


def test_a_run_that_stored_nothing_locks_nothing(tmp_path):
    for wrong in ("14,3,2", "15,3,2", "14,3,2"):
        with pytest.raises(PrepareError, match=f"13 bands, but --bands {wrong}: choose from bands"):
            make(tmp_path / "out", FakeSource(changes=ALL), bands=wrong, scale="0,3000")
    options = {"bands": "4,3,2", "scale": "0,3000", "shard_size": 3}  # other names of the shards
    make(tmp_path / "out", FakeSource(changes=ALL), **options)
    make(tmp_path / "new", FakeSource(changes=ALL), **options)
    assert contents(tmp_path / "out") == contents(tmp_path / "new")
    with pytest.raises(PrepareError, match="was started with other options"):
        make(tmp_path / "out", FakeSource(changes=ALL), **options | {"bands": "3,2,1"})


def test_the_rule_is_printed_and_stored(tmp_path, capsys):
    report = make(tmp_path / "out", FakeSource(changes=ALL), bands="4,3,2", scale="0,3000")
    assert not report.bad
    stored = decode(ShardDataset(tmp_path / "out", "train")[0]["image"])
    assert np.abs(stored.astype(int) - (255, 85, 85)).max() <= 2
    provenance = Schema.load(tmp_path / "out" / "schema.json").provenance
    assert (provenance["bands"], provenance["scale"]) == ([4, 3, 2], [0, 3000])
    written = json.loads((tmp_path / "out" / "prepare_report.json").read_text())
    assert written["scaled"] == {"count": 13, "low": 1000, "high": 3000}
    assert written["bands"] == [4, 3, 2]
    report.show(Console(width=200))
    shown = capsys.readouterr().out
    assert "bands 4,3,2 are stored as red, green, blue" in shown
    assert "13 images with values from 1000 to 3000: 0..3000 became 0..255" in shown


def test_another_rule_is_another_preparation(tmp_path):
    options = {"bands": "4,3,2", "scale": "percentile"}
    report = make(tmp_path / "out", FakeSource(changes=ALL), **options)
    assert "the 2nd to 98th percentile of each image became 0..255" in report.rules()[1]
    before = contents(tmp_path / "out")
    for changed, message in (
        ({"bands": "3,2,1"}, r"bands was \[4, 3, 2\] and is now \[3, 2, 1\]"),
        ({"scale": "0,3000"}, r"scale was 'percentile' and is now \[0\.0, 3000\.0\]"),
        ({"scale": None}, "scale was 'percentile' and is now None"),
    ):
        with pytest.raises(PrepareError, match=message):
            make(tmp_path / "out", FakeSource(changes=ALL), **options | changed)
    again = make(tmp_path / "out", FakeSource(changes=ALL), **options)
    assert again.scaled == report.scaled
    assert contents(tmp_path / "out") == before


def test_ordinary_images_need_no_rule(tmp_path):
    make(tmp_path / "plain")
    report = make(tmp_path / "scaled", scale="0,3000")
    assert report.rules() == ["all images have 8-bit values: --scale was not needed"]
    plain, scaled = contents(tmp_path / "plain"), contents(tmp_path / "scaled")
    schemas = [json.loads(files.pop("schema.json")) for files in (plain, scaled)]
    assert plain == scaled
    assert "scale" not in schemas[0]["provenance"]
    assert "bands" not in schemas[1]["provenance"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bands": "4,3"}, "--bands 4,3: give three band numbers"),
        ({"scale": "high"}, "--scale 'high': give LOW,HIGH"),
    ],
)
def test_wrong_rules_are_rejected_at_once(tmp_path, options, message):
    with pytest.raises(PrepareError, match=message):
        make(tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_every_source_has_the_options(tmp_path):
    (tmp_path / "a.tif").write_bytes(write_tiff(REFLECTANCE))
    (tmp_path / "metadata.csv").write_text("path\na.tif\n")
    command = ["prepare", "folder", "--source", tmp_path, "--out", tmp_path / "out"]
    command += ["--workers", 0, "--image-size", 16]
    result = CliRunner().invoke(cli, list(map(str, command)))
    assert "1 x " + REASON in str(result.exception)
    rule = ["--bands", "4,3,2", "--scale", "-1000,3000", "--out", tmp_path / "advised"]
    result = CliRunner().invoke(cli, list(map(str, command + rule)), terminal_width=300)
    assert result.exit_code == 0, result.exception
    assert "1 image with values from 1000 to 3000" in result.output


def test_errors_of_a_source_are_of_one_example(tmp_path):
    """A record that a source or library cannot take does not end the preparation."""
    changes = {1: KeyError("sun"), 2: ValueError("two\nlines"), 4: RecursionError("deep")}
    report = make(tmp_path / "out", FakeSource(val=0, changes=changes))
    assert report.splits == {"train": 7}
    assert [reason for *_, reason in report.bad] == [
        "KeyError: 'sun'",
        "ValueError: two lines",
        "RecursionError: deep",
    ]
    for error, message in (
        (OSError(5, "Input/output error"), "Input/output error"),
        (MemoryError(), r"train/001: too little memory to read and decode it: use fewer --workers"),
        (MemoryError("for 9 pixels"), r"too little memory .*decode it \(for 9 pixels\)"),
    ):
        with pytest.raises(type(error), match=message):  # not of the example
            make(tmp_path / type(error).__name__, FakeSource(changes={1: error}))
