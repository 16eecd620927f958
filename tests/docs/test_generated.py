"""Tables and links that the site makes from the code: those of the code, complete."""

import ast
import base64
import importlib.util
import io
import re
from types import SimpleNamespace

import click
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from satmip_jax.cli import cli
from satmip_jax.config.defaults import default_config
from satmip_jax.metadata.fields import FIELDS, select_fields
from satmip_jax.objectives import METHODS
from tests.conftest import REPOSITORY

TOOLS = REPOSITORY / "docs/tools"


def load(name, *needs):
    for module in needs:  # of the extra `docs`
        pytest.importorskip(module)
    spec = importlib.util.spec_from_file_location(name, TOOLS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rows_of(text):
    """The rows of all tables, as lists of cells."""
    lines = re.findall(r"^\| (`.*) \|$", text, re.MULTILINE)
    return [[cell.strip() for cell in re.split(r"(?<!\\) \| ", line)] for line in lines]


def leaves(section, prefix=""):
    for name, value in section.items():
        if hasattr(value, "items"):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def test_every_option_of_a_config_has_its_default_and_its_methods():
    rows = rows_of(load("reference").config_options())
    defaults = dict(leaves(default_config()))
    assert sorted(key.strip("`") for key, *_ in rows) == sorted(defaults)
    for key, default, valid, meaning in rows:
        name, value = key.strip("`"), ast.literal_eval(default.strip("`"))
        expected = defaults[name]
        assert value == (pytest.approx(expected, rel=1e-4) if type(value) is float else expected)
        assert valid
        assert meaning
        if name.startswith("method.") and name != "method.name":
            users = {
                method
                for method, options in METHODS.items()
                if name.removeprefix("method.") in options.options_class.__dataclass_fields__
            }
            assert users == set(re.search(r"\(([\w, ]+)\)$", meaning)[1].split(", ")), name
    by_name = {key.strip("`"): valid for key, _, valid, _ in rows}
    assert by_name["dtype"] == "one of float32, bfloat16"
    assert by_name["method.geo_clusters"] == "from 2 to 4096"


def test_fields_have_their_bounds_and_what_reveals_the_size():
    rows = {
        cells[0].strip("`"): cells[1:] for cells in rows_of(load("reference").metadata_fields())
    }
    assert list(rows) == [field.name for field in FIELDS]
    safe = {field.name for field in select_fields("all-leak")}
    revealing = {name for name, (*_, leak) in rows.items() if leak.strip(" |") == "yes"}
    assert revealing == set(rows) - safe
    assert rows["location"][2] == "-180 to 180, -90 to 90"
    assert rows["gsd"][2] == "above 0 to 10000"


def help_of(*command):
    """What `--help` prints, by option, without spaces: long words are broken there."""
    run = CliRunner().invoke(cli, [*command, "--help"], env={"COLUMNS": "100"})
    options = run.output.partition("Options:")[2]
    entries = re.split(r"^  (?=-)", options, flags=re.MULTILINE)[1:]
    described = (entry.split("\n\n")[0].strip() for entry in entries)
    parts = (re.split(r"\s{2,}", entry, maxsplit=1) for entry in described)
    return {names: "".join(text.split()) for names, text in parts if "--help" not in names}


def plain(cells):
    names, meaning = cells
    text = re.sub(r"\\([*_\[\]|#])", r"\1", meaning).replace("&lt;", "<")
    return names.strip("`"), "".join(text.split())


@pytest.mark.parametrize("name", ["train", "evaluate"])
def test_options_of_a_command_are_those_of_its_help(name):
    text = load("commands").commands(f"{name} report")
    section = text.partition("\n## satmip report")[0]
    described = dict(plain(cells) for cells in rows_of(section) if cells[0].startswith("`-"))
    assert described == help_of(name)


def test_options_of_subcommands_are_those_of_their_help():
    """Those that all of them share stand once, at the top."""
    head, *sections = load("commands").group("prepare").split("\n### satmip prepare ")
    shared = dict(plain(cells) for cells in rows_of(head))
    assert "--out TEXT" in shared
    children = {section.split("\n")[0]: section for section in sections}
    parent = cli.commands["prepare"]
    assert list(children) == parent.list_commands(click.Context(parent))
    for child, section in children.items():
        own = [plain(cells) for cells in rows_of(section) if cells[0].startswith("`-")]
        assert not {names for names, _ in own} & set(shared)
        assert shared | dict(own) == help_of("prepare", child)


LINKS = {
    "[part](../data.md#tables) of a page": "[part](../data.md#tables) of a page",
    "[home](../../README.md#use)": "[home](../index.md#use)",
    "[rules](../../CONTRIBUTING.md)": "[rules](../contributing.md)",
    "[notes](../notebooks/locate_on_a_map.ipynb)": "[notes](../notebooks/locate_on_a_map.md)",
    "[`cli`](../../satmip_jax/cli.py) and [it](../../satmip_jax/cli.py)": "`cli` and `it`",
    "[gone](../../gone.py) [web](https://a.b/c.md) [here](#part)": (
        "[gone](../../gone.py) [web](https://a.b/c.md) [here](#part)"
    ),
    "![bars](../pictures/results.svg)": (
        "![bars](../pictures/results.svg#only-light)\n![bars](../pictures/results-dark.svg#only-dark)"
    ),
    "```md\n[`x`](../../satmip_jax/cli.py)\n```": "```md\n[`x`](../../satmip_jax/cli.py)\n```",
}


def test_links_of_a_page_lead_to_pages_of_the_site():
    hooks = load("hooks", "mkdocs", "nbconvert")

    def shown(markdown, source):
        page = SimpleNamespace(parent="a section", meta={}, file=SimpleNamespace(src_uri=source))
        return hooks.on_page_markdown(markdown, page=page, config=None, files=None)

    everything = "\n\n".join(LINKS)
    assert shown(everything, "reference/config.md").split("\n\n") == list(LINKS.values())
    assert shown("[a](docs/data.md)", "contributing.md") == "[a](data.md)"
    text = shown("<!-- metadata fields: all -->\n<!-- commands: train doctor -->", "data.md")
    assert len(rows_of(text)) > len(FIELDS)
    assert re.findall("^## (.*)", text, re.MULTILINE) == ["satmip train", "satmip doctor"]


def test_saved_notebooks_keep_what_was_printed_and_drawn():
    notebooks = load("notebooks", "jupytext", "nbclient", "nbformat")
    from nbformat import v4

    def stream(name, text):
        return v4.new_output("stream", name=name, text=text)

    figure = v4.new_output("display_data", data={"image/png": "x"})
    outputs = [stream("stdout", "1\n"), stream("stderr", "50%"), stream("stdout", "2\n"), figure]
    outputs += [stream("stdout", "3\n")]
    code = v4.new_code_cell("f()", outputs=outputs, execution_count=7)
    saved = v4.new_notebook(cells=[v4.new_markdown_cell("old"), code])
    ours = v4.new_notebook(cells=[v4.new_markdown_cell("new"), v4.new_code_cell("f()")])
    notebooks.copy_outputs(ours, saved)
    cell = ours.cells[1]
    assert [output.get("text", "figure") for output in cell.outputs] == ["1\n2\n", "figure", "3\n"]
    assert (cell.execution_count, ours.cells[0].source) == (7, "new")
    for other in ("g()", "f()\n"):
        changed = v4.new_notebook(cells=[v4.new_code_cell(other)])
        with pytest.raises(SystemExit, match="not that of the saved outputs"):
            notebooks.copy_outputs(changed, saved)


def test_compressed_figures_keep_their_colours():
    notebooks = load("notebooks", "jupytext", "nbclient", "nbformat")
    pixels = np.random.default_rng(0).choice([0, 90, 255], size=(20, 30, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    small = notebooks.compress(base64.b64encode(file.getvalue()).decode())
    with Image.open(io.BytesIO(base64.b64decode(small))) as image:
        assert image.mode == "P"
        np.testing.assert_array_equal(np.asarray(image.convert("RGB")), pixels)
