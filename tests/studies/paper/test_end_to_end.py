"""The comparison with real trainings, on small data in the layouts of fMoW and six others."""

import io
import json

import pytest
from rich.console import Console

from satmip_jax.config.conversion import vary
from satmip_jax.studies.paper.run import PaperOptions, run_paper
from tests.studies.paper import data


@pytest.mark.slow
@pytest.mark.usefixtures("compiled_once", "one_device")
def test_seven_data_sets_and_wilds(tiny_config, tmp_path):
    """Two steps of each method, on all sets; with WILDS-fMoW, on those of the same years."""
    sets = data.transfer_sets(tmp_path)
    screen = Console(file=io.StringIO(), width=150, record=True)
    changes = {"metadata.fields": "all", "optimizer.images": 32, "method.name": "satmips"}
    config = vary(tiny_config("satmips"), changes)

    def run(out, **more):
        options = PaperOptions(parts=("methods", "modalities"), protocol="knn5", **more)
        run_paper(vary(config, {"data.dir": str(home)}), out, options, console=screen)
        return {entry["name"]: entry for entry in json.loads((out / "claims.json").read_text())}

    home = data.fmow(tmp_path)
    claims = run(tmp_path / "fmow", transfer=[str(folder) for folder in sets.values()])
    assert claims["satmips-transfer"]["verdict"] == "undecided"  # one seed
    assert claims["metadata-trained-eurosat"]["value"] is not None
    assert claims["satmips-both-leak-free"]["value"] is not None
    methods = (tmp_path / "fmow" / "tables" / "methods.md").read_text()
    assert f"| {' | '.join(sets)} | mean of transfer |" in methods
    assert " - |" not in methods.split("\n\n")[1]  # every cell is measured
    assert "cost: " in screen.export_text(clear=False)

    home = data.wilds(tmp_path)
    config = vary(config, {"data.val_split": "id_val"})
    claims = run(tmp_path / "wilds-study")
    assert claims["satmips-image"]["verdict"] == "undecided"
    assert claims["satmips-transfer"]["verdict"] == "not measurable"
