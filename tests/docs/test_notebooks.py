"""The notebooks run, and what is saved of their outputs is of the same cells.

If a saved notebook differs from its source: `python docs/tools/notebooks.py NAME`.
"""

import json
import os
import re
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY

FOLDER = REPOSITORY / "docs/notebooks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py"))
MAX_BYTES = 200_000
# Constants at the top of a notebook -> values with which it takes seconds.
TRAINING = {
    "SCENES": {"train": 96, "val": 48},
    "IMAGES": 96,
    "BATCH": 32,
    "ENCODER": "mu/8",
}
SMALL = {
    "train_and_evaluate": TRAINING,
    "compare_methods": {**TRAINING, "SEEDS": {"satmips": (0,)}},  # the same compiled program
    "embed_and_search": {},
    "locate_on_a_map": {"CELL": 2.0},
}
# One process for all: starting it and compiling would take longer than the rest.
RUN = """
import os, runpy
for script in {names}:
    os.mkdir(script)
    os.chdir(script)
    runpy.run_path(f"../{{script}}.py", run_name="__main__")
    os.chdir("..")
"""


def read_cells(name):
    """The cells of a .py file in the percent format, as (type, text)."""
    _, _, body = (FOLDER / f"{name}.py").read_text().split("# ---\n", 2)
    cells = []
    for part in re.split(r"^# %%", body, flags=re.MULTILINE)[1:]:
        head, _, text = part.partition("\n")
        if head.strip() == "[markdown]":
            cells.append(("markdown", re.sub(r"^# ?", "", text.strip(), flags=re.MULTILINE)))
        else:
            assert not head.strip(), f"{name}: a cell {head!r}"
            cells.append(("code", text.strip()))
    return cells


def read_saved(name):
    return json.loads((FOLDER / f"{name}.ipynb").read_text())["cells"]


@pytest.mark.slow
def test_notebooks_run_at_a_small_size(tmp_path):
    assert sorted(SMALL) == NAMES
    for name, constants in SMALL.items():
        code = (FOLDER / f"{name}.py").read_text()
        for constant, value in constants.items():
            line = f"{constant} = {value!r}"
            code, count = re.subn(rf"^{constant} = [^\n]*", line, code, flags=re.MULTILINE)
            assert count == 1, f"{name}.py sets {constant} {count} times"
        (tmp_path / f"{name}.py").write_text(code)
    fast = {"MPLBACKEND": "agg", "XLA_FLAGS": "", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", RUN.format(names=list(SMALL))],
        cwd=tmp_path,
        env={**os.environ, **fast, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("name", NAMES)
def test_saved_outputs_are_of_the_source(name):
    saved = read_saved(name)
    assert [(cell["cell_type"], "".join(cell["source"])) for cell in saved] == read_cells(name)
    for cell in (cell for cell in saved if cell["cell_type"] == "code"):
        source, outputs = "".join(cell["source"]), cell["outputs"]
        assert cell["execution_count"], source
        kinds = {output["output_type"] for output in outputs}
        assert kinds <= {"stream", "display_data"}, f"{kinds}: {source}"
        figures = [output for output in outputs if "image/png" in output.get("data", {})]
        assert len(figures) == source.count("plt.show()"), source
        if re.search(r"^print\(", source, re.MULTILINE):
            assert "stream" in kinds, source


@pytest.mark.parametrize("name", NAMES)
def test_saved_outputs_are_small_and_of_no_machine(name):
    assert (FOLDER / f"{name}.ipynb").stat().st_size < MAX_BYTES
    for cell in (cell for cell in read_saved(name) if cell["cell_type"] == "code"):
        for output in cell["outputs"]:
            assert output.get("name") != "stderr"
            shown = [*output.get("text", ()), *output.get("data", {}).get("text/plain", ())]
            text = "".join(shown)
            assert not re.search(r"(^|[\s'\"(=])/\w+/|\\\\|it/s|\r|\x1b", text, re.MULTILINE), text
