"""Hook of mkdocs: links that leave docs/, dark pictures, notebooks, and tables made from the code.

Pages are written so that they read well in the repository. There, a link may name a file of the
code; on the site it becomes plain text, because the code is not part of it.
"""

from __future__ import annotations

import posixpath
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from nbconvert import MarkdownExporter

sys.path.insert(0, str(Path(__file__).parent))

import commands
import reference

ROOT = Path(__file__).resolve().parents[2]
# files outside of docs/ that are pages of the site
PAGES = {
    "CONTRIBUTING.md": "contributing.md",
    "satmip_jax/pretrained/eurosat-satmips/README.md": "reference/eurosat-satmips.md",
}
NOTEBOOKS = "notebooks"  # folder in docs/
HOME = {"README.md": "index.md"}  # links to the one are links to the other
# what stands for <!-- name: argument -->
GENERATED: dict[str, Callable[[str], str]] = {
    "commands": commands.commands,
    "group": commands.group,
    "config options": lambda _: reference.config_options(),
    "metadata fields": lambda _: reference.metadata_fields(),
}
_MARKER = re.compile(rf"<!-- ({'|'.join(GENERATED)}): (.*?) -->")
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^( *)(`{3,}).*?^\1\2`* *$", re.MULTILINE | re.DOTALL)


def on_files(files: Files, *, config: Any) -> Files:
    """Add the pages whose files are outside of docs/."""
    for source, target in PAGES.items():
        text = re.sub(r"\A---\n.*?\n---\n", "", (ROOT / source).read_text(), flags=re.DOTALL)
        files.append(File.generated(config, target, content=text))
    for notebook in sorted((ROOT / "docs" / NOTEBOOKS).glob("*.ipynb")):
        for name, content in _page_of(notebook).items():
            files.append(File.generated(config, f"{NOTEBOOKS}/{name}", content=content))
    return files


def _page_of(notebook: Path) -> dict[str, str | bytes]:
    """Return the page of a notebook and its figures, name -> content."""
    stem = notebook.stem
    names = {"output_files_dir": f"{stem}_figures", "unique_key": "figure"}
    text, resources = MarkdownExporter().from_filename(str(notebook), resources=names)
    title, _, rest = text.partition("\n\n")
    link = f'<p><a href="{notebook.name}" download>Download this notebook</a></p>'
    rest = rest.replace("![png](", "![figure of the code above](")
    page = f"{title}\n\n{link}\n\n{rest}"
    return {f"{stem}.md": page, **resources["outputs"]}


def on_page_markdown(markdown: str, *, page: Page, config: Any, files: Files) -> str:
    """Insert the tables, and adapt links and pictures."""
    if page.parent is None:  # nothing stands beside it in the navigation
        page.meta["hide"] = ["navigation"]
    markdown = _MARKER.sub(lambda match: GENERATED[match[1]](match[2]), markdown)
    here = page.file.src_uri
    source = next((source for source, target in PAGES.items() if target == here), f"docs/{here}")
    pieces, end = [], 0
    for fence in _FENCE.finditer(markdown):  # links in code are code
        pieces += [_adapt(markdown[end : fence.start()], source, here), fence[0]]
        end = fence.end()
    return "".join([*pieces, _adapt(markdown[end:], source, here)])


def _adapt(text: str, source: str, here: str) -> str:
    """Adapt the links of a text from the file `source`, which is the page `here`."""

    def link(match: re.Match[str]) -> str:
        picture, label, target = match.groups()
        if re.match(r"[a-z]+:|#", target):
            return match[0]
        path, _, anchor = target.partition("#")
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        path = PAGES.get(path) or HOME.get(path) or path
        inside = path in PAGES.values() or path in HOME.values()
        if not inside and not path.startswith("docs/"):
            if not (ROOT / path).exists():
                return match[0]  # mkdocs reports it
            return label if label.startswith("`") else f"`{label}`"
        path = path.removeprefix("docs/")
        if path.startswith(NOTEBOOKS):
            path = path.replace(".ipynb", ".md")
        url = posixpath.relpath(path, posixpath.dirname(here) or ".")
        dark = path.replace(".svg", "-dark.svg")
        if picture and dark != path and (ROOT / "docs" / dark).exists():
            url_dark = url.replace(".svg", "-dark.svg")
            return f"![{label}]({url}#only-light)\n![{label}]({url_dark}#only-dark)"
        return f"{picture}[{label}]({url}{'#' if anchor else ''}{anchor})"

    return _LINK.sub(link, text)
