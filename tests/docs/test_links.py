"""The check of links finds each link that leads nowhere, and no other."""

import importlib.util

import pytest

from tests.conftest import REPOSITORY

README = """---
title: [front](matter.md)
---
# Title & more, of `code`

## Twice

## Twice

[page](docs/a.md), [part](docs/a.md#first-part), [folder](docs), [own](#title--more-of-code),
[second](#twice-1), [other host](https://example.org/gone), [mail](mailto:a@b.org) and
`[code](is-no-link.md)`, [space](docs/a%20b.md), [accent](docs/a%20b.md#gr%C3%B6%C3%9Fe).

[no file](docs/b.md), [no part](docs/a.md#second-part), [not of this page](#first-part),
[third](#twice-2), ![picture](none.png), and <img src="inline.png"> in a line.

| table |
|---|
| [in a table](table.md) |

<p><img src="block.png"><a href="docs/a.md">page</a></p>

<picture><source srcset="dark.png"></picture>
"""
BROKEN = [
    "README.md: docs/b.md: no such file",
    "README.md: docs/a.md#second-part: no such heading",
    "README.md: #first-part: no such heading",
    "README.md: #twice-2: no such heading",
    "README.md: none.png: no such file",
    "README.md: inline.png: no such file",
    "README.md: table.md: no such file",
    "README.md: block.png: no such file",
    "README.md: dark.png: no such file",
    "docs/a.md: ../gone.md: no such file",
    "docs/below/c.md: gone.md: no such file",
]
INDEX = """<html><head><link rel="canonical" href="https://example.org/">
<link href="style.css"></head><body><h1 id="top">Top</h1>
<a href="sub/">sub</a> <a href="sub/#here">here</a> <a href="#top">top</a>
<a href="/sub/index.html">from the root</a> <a href="https://example.org/">other host</a>
<a href="sub/#there">there</a> <a href="away/">away</a> <a href="#bottom">bottom</a>
<img src="none.svg"><script src="none.js"></script>
<picture><source srcset="none.webp"></picture> <a href="sub/#old">old</a>
</body></html>
"""
BROKEN_ON_SITE = [
    "site/index.html: sub/#there: no such heading",
    "site/index.html: away/: no such file",
    "site/index.html: #bottom: no such heading",
    "site/index.html: none.svg: no such file",
    "site/index.html: none.js: no such file",
    "site/index.html: none.webp: no such file",
]
LOADED = [
    '<script src="https://cdn.example.org/x.js">',
    '<script src="//cdn.example.org/x.js">',
    '<link rel="stylesheet" href="https://cdn.example.org/x.css">',
    '<img alt="" src="http://cdn.example.org/x.png">',
    '<iframe src="https://cdn.example.org/">',
    '<source srcset="https://cdn.example.org/x.webp">',
]


@pytest.fixture
def checker(tmp_path, monkeypatch):
    path = REPOSITORY / "docs/tools/check_links.py"
    spec = importlib.util.spec_from_file_location("check_links", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    files = {
        "README.md": README,
        "docs/a.md": "# First part\n\n[back](../README.md#twice) and [gone](../gone.md)\n",
        "docs/a b.md": "# Größe\n",
        "docs/below/c.md": "[gone](gone.md)\n",
        "site/index.html": INDEX,
        "site/sub/index.html": '<p id="here"><a name="old" href="../style.css">style</a></p>',
        "site/404.html": '<a href="/under/another/root/">of the server</a>',
        "site/style.css": "",
        "site/cdn.html": "".join(LOADED),
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "SITE", tmp_path / "site")
    return module


def test_broken_links_are_all_that_lead_nowhere(checker):
    assert checker.broken_links() == [*BROKEN_ON_SITE, *BROKEN]
    outside = {link for _, link, target, _ in checker.links() if target is None}
    assert outside >= {"https://example.org/gone", "https://example.org/", "mailto:a@b.org"}


def test_a_page_loads_nothing_from_another_host(checker):
    assert checker.loaded_from_elsewhere() == [f"site/cdn.html: {tag}" for tag in LOADED]


def test_the_command_fails_if_anything_is_wrong(checker, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["check_links.py"])
    with pytest.raises(SystemExit) as stopped:
        checker.main()
    assert stopped.value.code == 1
    printed = capsys.readouterr()
    assert f"{len(BROKEN_ON_SITE + BROKEN + LOADED)} broken" in printed.out
    assert "docs/b.md: no such file" in printed.err
