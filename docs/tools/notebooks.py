"""Run the notebooks of docs/notebooks, and save them with their outputs and figures.

    python docs/tools/notebooks.py [--text] [NAME ...]

The `.py` file of a pair is the source; this writes the `.ipynb` beside it. Progress bars and
messages on stderr are left out, and so is whatever differs from machine to machine. With --text
nothing runs: text is updated, and the code has to be that of the saved outputs.
"""

from __future__ import annotations

import base64
import io
import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import jupytext
import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from PIL import Image

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
TIMEOUT = 3600  # seconds, of a cell
COLOURS = 256  # of a figure: a third of the bytes


def run(notebook: NotebookNode) -> None:
    """Run a notebook in a temporary folder; keep the outputs but those on stderr."""
    with TemporaryDirectory() as folder:
        options = {"timeout": TIMEOUT, "kernel_name": "python3"}
        NotebookClient(notebook, resources={"metadata": {"path": folder}}, **options).execute()
    for cell in code_cells(notebook):
        cell.outputs = kept_outputs(cell.outputs)
        for data in (output.data for output in cell.outputs if "data" in output):
            if "image/png" in data:
                data["image/png"] = compress(data["image/png"])


def kept_outputs(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Return the outputs without stderr; text that it separated is one output again."""
    kept: list[NotebookNode] = []
    for output in (output for output in outputs if output.get("name") != "stderr"):
        if kept and output.get("name") == kept[-1].get("name") == "stdout":
            kept[-1].text += output.text
        else:
            kept.append(output)
    return kept


def copy_outputs(notebook: NotebookNode, saved: NotebookNode) -> None:
    """Copy the outputs of a saved notebook of the same code.

    Raises:
        SystemExit: The code differs.
    """
    ours, theirs = code_cells(notebook), code_cells(saved)
    if [cell.source for cell in ours] != [cell.source for cell in theirs]:
        sys.exit("the code is not that of the saved outputs: run without --text")
    for cell, other in zip(ours, theirs, strict=True):
        cell.outputs, cell.execution_count = kept_outputs(other.outputs), other.execution_count


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """Return the cells of code."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def compress(figure: str) -> str:
    """Return a PNG in base64 with a palette instead of all colours."""
    with Image.open(io.BytesIO(base64.b64decode(figure))) as image:
        palette = image.convert("RGB").quantize(
            COLOURS, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE
        )
    file = io.BytesIO()
    palette.save(file, format="png", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def main() -> None:
    """Save the named notebooks, or all."""
    os.environ |= {"JAX_PLATFORMS": "cpu"}
    names = [argument for argument in sys.argv[1:] if argument != "--text"]
    for source in [FOLDER / f"{name}.py" for name in names] or sorted(FOLDER.glob("*.py")):
        notebook, target = jupytext.read(source), source.with_suffix(".ipynb")
        if "--text" in sys.argv:
            copy_outputs(notebook, nbformat.read(target, as_version=4))
        else:
            run(notebook)
        notebook.metadata.language_info = {"name": "python"}  # without its version
        for number, cell in enumerate(notebook.cells):
            cell.id, cell.metadata = f"cell-{number}", NotebookNode()
        nbformat.write(notebook, target)
        print(f"{target.name}: {target.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
