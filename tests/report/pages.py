"""Parsed pages, and folders of runs to report on."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

from satmip_jax.evaluation.results import Score

# Untrusted names that try to be more than text.
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "$\\frac{$ _hidden",
    "森林 & <b>",
    "' onmouseover='alert(1)",
    "{{ 7 * 7 }}",
)


class Page(HTMLParser):
    """The tags and the text of a page, as a browser parses it."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def check(self) -> None:
        """Check that the page is self-contained, inert and accessible."""
        ids = {attrs["id"] for _, attrs in self.tags if "id" in attrs}
        for tag, attrs in self.tags:
            assert tag not in ("script", "iframe", "object", "embed", "link", "base", "form"), tag
            assert not [name for name in attrs if name.startswith("on")], attrs
            assert (attrs.get("src") or "data:image/").startswith("data:image/"), attrs
            if "href" in attrs:
                assert attrs["href"].removeprefix("#") in ids, attrs
            if tag == "img":
                assert attrs.get("alt"), "an image without a text alternative"
        assert not re.search(r"url\(|@import|https?:", self.source)
        assert len(ids) == len([1 for _, attrs in self.tags if "id" in attrs]), "a duplicate id"


def open_page(path: Path) -> Page:
    """Parse a page and check it."""
    page = Page(path)
    page.check()
    return page


ROWS = [
    Score("synthetic", "val", "satmips mu/8", "image", "knn5", "accuracy", 0.4375, 24, 0.25, 0.625),
    Score("synthetic", "val", "colour", "image", "knn5", "accuracy", 0.3125, 24, 0.15, 0.5),
    Score("synthetic", "val", "satmips mu/8", "both", "linear", "macro_f1", 0.58333, 24),
    Score("synthetic", "val", "satmips mu/8", "image", "knn5 blocked 1deg", "accuracy", 0.2, 20),
]


def without_data(run: Path, copy: Path, **files: str) -> Path:
    """Copy a run without its data and checkpoints, with some of its files replaced."""
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("checkpoints", "tensorboard"))
    config = json.loads((copy / "config.json").read_text())
    config["data"]["dir"] = str(copy / "gone")
    (copy / "config.json").write_text(json.dumps(config))
    for name, text in files.items():
        (copy / name.replace("_json", ".json")).write_text(text)
    return copy
