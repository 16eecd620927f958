"""The run of the comparison: resumed, with failures, and what it writes."""

import csv
import io
import json
import xml.etree.ElementTree as ET

import pytest
from rich.console import Console

from satmip_jax.config.conversion import to_json, vary
from satmip_jax.data.shard_dataset import ShardDataset
from satmip_jax.evaluation.results import Score
from satmip_jax.report.page import write_report
from satmip_jax.runtime.paths import make_folder
from satmip_jax.studies import plot, scoring
from satmip_jax.studies.base import StudyError
from satmip_jax.studies.paper import run
from satmip_jax.studies.paper.cost import StepTimes
from satmip_jax.studies.paper.run import PaperOptions, run_paper
from satmip_jax.training.monitor import NotFiniteError
from tests.report.pages import open_page
from tests.studies.paper import data

QUALITY = {"simclr": 0.60, "satmip": 0.55, "satmips": 0.62, "untrained": 0.3}
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"/>'
TRAINED = ("methods", "modalities", "convergence", "fields")


class Fakes:
    """Trainings and scores without a model, as quick as files; `train` may fail for a method."""

    def __init__(self, patch):
        self.trained, self.evaluated, self.failing = [], [], ""
        patch.setattr(scoring, "train", self.train)
        patch.setattr(scoring, "evaluate", self.evaluate)
        patch.setattr(scoring, "evaluate_baseline", self.evaluate_baseline)
        patch.setattr(run, "measured_times", lambda *_: StepTimes({}, 1, "toy"))
        # the parts draw theirs after every run
        patch.setattr(plot, "render", lambda *_: {"svg": SVG, "png": b""})

    def train(self, config, folder):
        if config.method.name == self.failing:
            raise NotFiniteError("step 3: loss is nan")
        self.trained.append(folder.name)
        make_folder(folder)
        (folder / "config.json").write_text(to_json(config))

    def evaluate(self, folder, shards, *, features, init, fields, **options):
        self.evaluated.append((folder.name, features))
        config = json.loads((folder / "config.json").read_text())
        method, seed = config["method"]["name"], config["seed"]
        value = QUALITY["untrained" if init == "random" else method] + seed / 500
        kinds = features if method != "simclr" else ["image"]
        gain = {"image": 0.0, "both": 0.04, "metadata": -0.3 if init == "trained" else -0.1}
        return self.rows(f"{method} {init}", shards, value, gain, kinds, fields, options)

    def evaluate_baseline(self, name, shards, *, fields, **options):
        kinds = ["metadata", "both"] if name == "fields" else ["image"]
        return self.rows(name, shards, 0.1, dict.fromkeys(kinds, 0.0), kinds, fields, options)

    def rows(self, model, shards, value, gain, kinds, fields, options):
        dataset = ShardDataset(shards, options["split"])
        known = any(stats.count for stats in dataset.schema.fields.values())
        kinds = kinds if known else ["image"]  # as `evaluate` does
        shown = {
            (kind, "all" if kind == "image" else spec): None for spec in fields for kind in kinds
        }
        rows = []
        for kind, spec in shown:
            for protocol in options["protocols"]:
                suffix = f" (tune {options['tune']})" if "tune" in options else ""
                name = kind if spec == "all" else f"{kind} ({spec})"
                score = value + gain[kind] - (0.05 if spec != "all" else 0.0)
                where = (dataset.schema.name, options["split"], model, name, protocol + suffix)
                rows.append(Score(*where, "macro_f1", score, 24))
        return rows


@pytest.fixture
def fakes(monkeypatch):
    return Fakes(monkeypatch)


@pytest.fixture
def screen():
    return Console(file=io.StringIO(), width=150, record=True)


def config_of(tiny_config):
    changes = {"metadata.fields": "all", "optimizer.images": 512}
    return vary(tiny_config("satmips"), changes)


@pytest.mark.slow
def test_every_training_happens_once_and_a_second_call_trains_nothing(
    tiny_config, tmp_path, fakes, screen
):
    options = PaperOptions(parts=TRAINED, seeds=2)
    run_paper(config_of(tiny_config), tmp_path / "out", options, console=screen)
    trained = set(fakes.trained)
    assert len(trained) == 2 * (3 + 9 + 5)
    # once with all features, leak-free or not, or once from the image alone
    scored = [name for name, features in fakes.evaluated]
    assert scored.count("satmip-half-seed0") == 1
    assert scored.count("satmip-seed1") == 1
    assert scored.count("satmips-seed0") == 2  # trained and untrained
    first = {p.name: p.read_bytes() for p in (tmp_path / "out" / "tables").iterdir()}
    claims = (tmp_path / "out" / "claims.json").read_bytes()

    fakes.trained.clear()
    fakes.evaluated.clear()
    run_paper(config_of(tiny_config), tmp_path / "out", options, console=screen)
    assert not fakes.trained
    assert not fakes.evaluated
    assert {p.name: p.read_bytes() for p in (tmp_path / "out" / "tables").iterdir()} == first
    assert (tmp_path / "out" / "claims.json").read_bytes() == claims

    found = {entry["name"]: entry for entry in json.loads(claims)}
    assert found["satmips-image"]["verdict"] == "confirmed"
    assert found["satmips-image"]["value"] == pytest.approx(2.0)
    assert found["satmips-both-leak-free"]["verdict"] == "refuted"  # 4 points less 5
    assert found["satmips-both-leak-free"]["value"] == pytest.approx(-1.0)
    assert found["metadata-trained"]["value"] == pytest.approx(100 * (0.25 - 0.2))
    assert found["satmips-transfer"]["verdict"] == "not measurable"
    assert found["satmips-transfer"]["reasons"] == ["no transfer set was given as --transfer"]
    assert found["satmip-time"]["reasons"] == ["relative_step_time of satmip was not measured"]


@pytest.mark.slow
def test_files_and_page(tiny_config, tmp_path, fakes, screen):
    sets = data.transfer_sets(tmp_path, ["eurosat", "optimal31"])
    options = PaperOptions(parts=TRAINED, seeds=2, transfer=[str(f) for f in sets.values()])
    out = tmp_path / "out"
    run_paper(config_of(tiny_config), out, options, console=screen)
    for name in ("methods", "convergence", "bimodal", "metadata", "fields"):
        ET.parse(out / "figures" / f"{name}.svg")
        assert (out / "tables" / f"{name}.md").read_text().startswith("## ")
    with (out / "tables" / "methods.csv").open(newline="") as file:
        cells = {(r["row"], r["column"]): r for r in csv.DictReader(file)}
    satmips = cells["SatMIPS", "eurosat"]
    assert (satmips["mean"], satmips["published"], satmips["seeds"]) == ("62.1", "95.1", "2")
    assert cells["untrained", "optimal31"]["published"] == ""
    assert cells["SatMIP", "mean of transfer"]["published"] == "79.3"
    text = (out / "tables" / "methods.md").read_text()
    assert "62.1 ± 0.1 (62.3)" in text
    assert "not given here: fgsc23, resisc45, so2sat, ucmerced" in text
    # EuroSAT has metadata, and the paper numbers for it
    assert "| SatMIP, eurosat | 55.1 ± 0.1 (94.5) |" in (out / "tables" / "bimodal.md").read_text()
    records = json.loads((out / "paper.json").read_text())
    assert records["score"] == "macro_f1, linear"
    page = open_page(out / "report.html")
    for expected in ("SatMIPS learns better", "confirmed", "62.1 ± 0.1 (62.3)", "Student's t"):
        assert expected in page.text, expected
    assert len([a for tag, a in page.tags if tag == "img"]) >= 5 + 4
    assert open_page(write_report([out], tmp_path / "again.html")).text
    assert "claims.md, tables, figures, report.html" in screen.export_text()


def test_failed_trainings_leave_their_claims_unmeasured(tiny_config, tmp_path, fakes, screen):
    fakes.failing = "simclr"
    options = PaperOptions(parts=("methods", "convergence"), seeds=2)
    with pytest.raises(StudyError, match=r"8 runs failed: .*simclr-half-seed1"):
        run_paper(config_of(tiny_config), tmp_path, options, console=screen)
    found = {entry["name"]: entry for entry in json.loads((tmp_path / "claims.json").read_text())}
    assert found["satmips-image"]["verdict"] == "not measurable"
    assert "loss is nan" in found["satmips-image"]["reasons"][0]
    fakes.failing = ""
    run_paper(config_of(tiny_config), tmp_path, options, console=screen)
    found = {entry["name"]: entry for entry in json.loads((tmp_path / "claims.json").read_text())}
    assert found["satmips-image"]["verdict"] == "confirmed"


@pytest.mark.slow
def test_six_transfer_sets_and_wilds(tiny_config, tmp_path, fakes, screen):
    sets = data.transfer_sets(tmp_path)
    options = PaperOptions(parts=["methods"], transfer=[str(f) for f in sets.values()])
    changes = {"data.dir": str(data.wilds(tmp_path)), "data.val_split": "id_val"}
    run_paper(vary(config_of(tiny_config), changes), tmp_path / "out", options, console=screen)
    table = (tmp_path / "out" / "tables" / "methods.md").read_text()
    assert f"| wilds_fmow | {' | '.join(sets)} | mean of transfer |" in table
    assert " - |" not in table  # every cell is measured
    assert "not given here" not in table
    with (tmp_path / "out" / "methods" / "results.csv").open(newline="") as file:
        scored = {(r["dataset"], r["split"], r["protocol"]) for r in csv.DictReader(file)}
    # own splits: without val, strengths are chosen on a part of train
    assert {("wilds_fmow", "id_val", "linear"), ("fgsc23", "test", "linear")} <= scored
    assert ("eurosat", "test", "linear (tune val)") in scored
