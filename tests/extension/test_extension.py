"""Extensions: a method, a metadata field, a data set and a probe, one file or entry each.

A copy of the package gets the files of this folder and one line per registry. Every command then
runs with it, as a user would run it.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, TINY

pytestmark = pytest.mark.slow

FILES = {
    "toy_method.py": "objectives",
    "toy_source.py": "sources",
    "toy_probe.py": "evaluation",
}
# file -> (text that is found, the same text with the line of the extension)
LINES = {
    "objectives/__init__.py": (
        r"(METHODS: .* = \{\n)",
        r'from satmip_jax.objectives.toy_method import TwoHeads\n\1    "two_heads": TwoHeads,\n',
    ),
    "sources/registry.py": (
        r"(SOURCES: .* = \{\n)",
        r'\1    "shades": Entry("satmip_jax.sources.toy_source:Shades", "Squares of a colour"),\n',
    ),
    "evaluation/protocols.py": (
        r"(PROTOCOLS: .* = \{\n)",
        r"from satmip_jax.evaluation.toy_probe import nearest_mean\n"
        r'\1    "nearest-mean": Protocol(nearest_mean),\n',
    ),
    "metadata/fields.py": (
        r"(FIELDS: .* = \()((?s:.*?))\n\)\n",
        r'\1\2\n    Field("snow_cover", Numeric(low=0.0, high=100.0), '
        '"Other", "percent", "snow {0:.3g}"),\n)\n',
    ),
}
COUNT, BATCH, WIDTH, TOY_WIDTH = 24, 8, 32, 6  # 32: of the encoder "mu/8"


def run_python(code: Path, folder: Path, *arguments: object) -> str:
    """Run Python with the package in `code`, on one device; return what it prints."""
    result = subprocess.run(
        [sys.executable, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(code), "XLA_FLAGS": ""},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


class Package:
    """The extended copy, a folder for its data, and its commands."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("satmip_jax", "configs"):
            shutil.copytree(REPOSITORY / name, folder / "code" / name)
        for name, room in FILES.items():
            shutil.copy(Path(__file__).with_name(name), folder / "code" / "satmip_jax" / room)
        for name, (pattern, replacement) in LINES.items():
            path = folder / "code" / "satmip_jax" / name
            text, count = re.subn(pattern, replacement, path.read_text())
            assert count == 1, f"{name} has no registry"
            path.write_text(text)

    def python(self, *arguments: object) -> str:
        """Run Python with the copy; return what it prints."""
        return run_python(self.folder / "code", self.folder, *arguments)

    def satmip(self, *arguments: object) -> str:
        """Run a command with the copy."""
        return self.python("-m", "satmip_jax.cli", *arguments)

    def config(self, method: str) -> list[str]:
        """Arguments for a tiny training of a method on the toy data set."""
        sizes = (f"--config.optimizer.batch_size={BATCH}", "--config.optimizer.images=16")
        return [
            f"--config={REPOSITORY}/configs/eurosat.py:{method},cpu",
            *TINY,
            "--config.data.dir=shards",
            "--config.metadata.fields=snow_cover",
            *sizes,
        ]


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Package:
    """The copy, with the toy data set prepared and both methods trained for two steps."""
    package = Package(tmp_path_factory.mktemp("extension"))
    package.satmip(
        *("prepare", "shades", "--source", "none", "--out", "shards", "--count", COUNT),
        *("--workers", 0),
    )
    toy = (f"--config.method.toy_width={TOY_WIDTH}", "--workdir=two_heads")
    package.satmip("train", *package.config("two_heads"), *toy)
    package.satmip("train", *package.config("satmip"), "--workdir=satmip")
    return package


def scores(package: Package, workdir: str) -> dict[tuple[str, str, str], float]:
    """(features, protocol, metric) -> value."""
    rows = json.loads((package.folder / workdir / "evaluation.json").read_text())
    return {(row["features"], row["protocol"], row["metric"]): row["value"] for row in rows}


def test_source_declares_its_flags_classes_and_metric(package):
    help_text = package.satmip("prepare", "shades", "--help")
    assert re.search(r"--count INTEGER\s+Number of images to train on", help_text)
    assert "shades" in package.satmip("prepare", "--help")
    schema = json.loads((package.folder / "shards" / "schema.json").read_text())
    assert schema["splits"] == {"train": COUNT, "val": COUNT // 2}
    assert schema["classes"] == ["dark", "bright"]
    assert schema["class_weights"] == {"shade_f1": [1.0, 3.0]}
    known = [i for i in range(COUNT) if i % 5]
    assert schema["fields"]["snow_cover"]["count"] == len(known)
    mean = sum(80.0 * (i % 2) + i / 10 for i in known) / len(known)
    assert schema["fields"]["snow_cover"]["mean"] == pytest.approx([mean])


def test_method_is_trained_with_its_options_and_logged(package):
    config = json.loads((package.folder / "two_heads" / "config.json").read_text())
    assert config["method"]["toy_width"] == TOY_WIDTH
    assert config["method"]["toy_weight"] == 0.5
    lines = (package.folder / "two_heads" / "metrics.jsonl").read_text().splitlines()
    row = json.loads(lines[0])
    assert row["loss"] == pytest.approx(row["pairs_loss"] + row["number_loss"], rel=1e-5)


def test_probe_and_metric_are_scored_from_the_new_field(package):
    for workdir, features in (("two_heads", "image"), ("satmip", "image,metadata,both")):
        package.satmip(
            *("evaluate", "--workdir", workdir, "--data", "shards", "--features", features),
            *("--protocols", "nearest-mean", "--block", 0),
        )
    image = scores(package, "two_heads")
    assert set(image) == {
        ("image", "nearest-mean", metric) for metric in ("accuracy", "macro_f1", "shade_f1")
    }
    assert image["image", "nearest-mean", "accuracy"] == 1.0  # bright is bright
    # snow_cover, known for 9 of 12 images, tells bright from dark
    assert scores(package, "satmip")["metadata", "nearest-mean", "accuracy"] >= 0.75


def test_doctor_is_right_by_hand(package):
    """FLOPs and score memory of a method that planning has never heard of."""
    code = """
import json, sys
from satmip_jax.config import load_config
from satmip_jax.data.shard_dataset import ShardDataset
from satmip_jax.distributed.sharding import make_mesh
from satmip_jax.planning.flops import step_flops
from satmip_jax.planning.memory import score_bytes
from satmip_jax.training.step import build_program
found = {}
for name in ("two_heads", "satmip"):
    spec, *overrides = [a.replace("METHOD", name) for a in sys.argv[1:]]
    config = load_config(spec.removeprefix("--config="), overrides)
    data = ShardDataset(config.data.dir, "train")
    program = build_program(config, data.schema, len(data), make_mesh())
    negatives = program.method.negatives(config.optimizer.batch_size)
    found[name] = [step_flops(program), score_bytes(program), negatives]
print(json.dumps(found))
"""
    arguments = package.config("METHOD")
    found = json.loads(
        package.python("-c", code, *arguments, f"--config.method.toy_width={TOY_WIDTH}")
    )
    flops, memory, negatives = found["two_heads"]
    both_passes, multiply_add = 3, 2  # forward, and two products backward
    encoder = found["satmip"][0]["image encoder"]  # of one view
    assert flops["image encoder"] == 2 * encoder
    head = both_passes * multiply_add * BATCH * WIDTH
    assert flops["heads"] == 2 * head * TOY_WIDTH + head * 1
    assert flops["loss"] == both_passes * multiply_add * (2 * BATCH) ** 2 * TOY_WIDTH
    assert "metadata encoder" not in flops
    assert memory == 3 * 4 * (2 * BATCH) ** 2  # three float32 matrices
    assert negatives == {"pairs": 2 * BATCH - 2}
    said = package.satmip("doctor", *package.config("two_heads"))
    assert "no problems found" in said
    assert "negatives, pairs" in said


def test_study_and_report_show_them(package):
    """A study of the new method with the new probe; a page on it and on the runs."""
    package.satmip(
        *("study", "batch-size", *package.config("two_heads"), "--out", "study"),
        *("--batch-sizes", "8"),
    )
    table = (package.folder / "study" / "results.csv").read_text()
    assert "two_heads" in table
    assert "nearest-mean" in table
    assert "shade_f1" in table
    code = """
from satmip_jax.data.shard_dataset import ShardDataset
from satmip_jax.config import load_config
from satmip_jax.studies.base import MethodConfigs
from satmip_jax.studies.registry import open_study
import sys
config = load_config(sys.argv[1].removeprefix("--config="), sys.argv[2:])
schema = ShardDataset("shards", "train").schema
print([v.name for v in open_study("methods").plan(MethodConfigs(config), schema).variants])
"""
    assert "'two_heads'" in package.python("-c", code, *package.config("satmip"))
    package.satmip("report", "two_heads", "satmip", "study", "--out", "page.html")
    page = (package.folder / "page.html").read_text()
    for text in ("Two heads", "nearest-mean", "shade", "snow"):
        assert text in page


def test_data_and_models_of_before_the_field_stay_usable(package, tiny_shards_dir, tiny_run):
    """Shards of 15 fields are read; a model of 15 fields keeps to its own."""
    code = """
import sys
from satmip_jax.data.shard_dataset import ShardDataset
data = ShardDataset(sys.argv[1], "train")
print(sorted(data[0]["metadata"].values), data.schema.fields["snow_cover"].count)
"""
    said = package.python("-c", code, tiny_shards_dir)
    assert "gsd" in said
    assert "snow_cover" not in said.rpartition("]")[0]
    assert said.split()[-1] == "0"
    options = ("--data", tiny_shards_dir, "--protocols", "knn5", "--block", 0)
    command = ("-m", "satmip_jax.cli", "evaluate")
    for workdir in ("before", "after"):
        shutil.copytree(tiny_run, package.folder / workdir)
    run_python(REPOSITORY, package.folder, *command, "--workdir", "before", *options)
    package.satmip("evaluate", "--workdir", "after", *options)
    assert scores(package, "after") == scores(package, "before")
    assert ("both", "knn5", "accuracy") in scores(package, "after")
