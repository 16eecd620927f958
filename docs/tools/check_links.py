"""Check the links of the built site and those of the Markdown files as a repository shows them.

    python docs/tools/check_links.py [--external]

Files and anchors must exist. Links to other hosts are listed by --external, which requests each.
"""

from __future__ import annotations

import re
import sys
import unicodedata
import urllib.error
import urllib.request
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from markdown_it import MarkdownIt

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "site"
LINKS = {"a": "href", "img": "src", "script": "src", "link": "href", "source": "srcset"}
_HTML_LINK = re.compile(r"(?:src|srcset|href)=\"([^\"]+)\"")


class Page(HTMLParser):
    """The links and the anchors of an HTML file."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the link and the anchor of a tag."""
        values = dict(attrs)
        self.anchors |= {value for key in ("id", "name") if (value := values.get(key))}
        if (link := values.get(LINKS.get(tag, ""))) is not None:
            self.links.append(link)


def markdown_files() -> list[Path]:
    """Return the Markdown files that the repository shows."""
    return [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def read_markdown(path: Path) -> tuple[list[str], set[str]]:
    """Return the links of a file, and the anchors that GitHub gives to its headings."""
    found: list[str] = []
    anchors: set[str] = set()
    text = re.sub(r"\A---\n.*?\n---\n", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    for before, token in zip([None, *tokens], tokens, strict=False):
        if token.type == "html_block":
            found += _HTML_LINK.findall(token.content)
        for child in token.children or ():
            found += [str(child.attrs[key]) for key in ("href", "src") if key in child.attrs]
            found += _HTML_LINK.findall(child.content) if child.type == "html_inline" else []
        if before is not None and before.type == "heading_open":
            words = "".join(child.content for child in token.children or ())
            slug = re.sub(r"[^\w\- ]", "", unicodedata.normalize("NFC", words).lower())
            slug = slug.replace(" ", "-")
            number = next(n for n in range(1000) if (f"{slug}-{n}" if n else slug) not in anchors)
            anchors.add(f"{slug}-{number}" if number else slug)
    return found, anchors


def links() -> Iterator[tuple[Path, str, Path | None, str]]:
    """Yield (file, link, its target, its anchor); the target is None for another host."""
    pages = [(path, Page(path).links) for path in sorted(SITE.rglob("*.html"))]
    pages += [(path, read_markdown(path)[0]) for path in markdown_files()]
    for path, found in pages:
        for link in found:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                yield path, link, None, ""
                continue
            base = SITE if parts.path.startswith("/") else path.parent
            target = (base / unquote(parts.path).lstrip("/")).resolve() if parts.path else path
            yield path, link, target, unquote(parts.fragment)


def broken_links() -> list[str]:
    """Return a line for each link within the repository or the site that leads nowhere."""
    anchors: dict[Path, set[str]] = {}
    problems = []
    for path, link, target, anchor in links():
        if target is None or path.name == "404.html":  # its links begin at the root of a server
            continue
        if target.is_dir() and (target / "index.html").exists():
            target = target / "index.html"
        if not target.exists():
            problems.append(f"{path.relative_to(ROOT)}: {link}: no such file")
        elif anchor and target.suffix in (".html", ".md"):
            if target not in anchors:
                html = target.suffix == ".html"
                anchors[target] = Page(target).anchors if html else read_markdown(target)[1]
            if anchor not in anchors[target]:
                problems.append(f"{path.relative_to(ROOT)}: {link}: no such heading")
    return problems


def loaded_from_elsewhere() -> list[str]:
    """Return a line for each file that a page would load from another host."""
    problems = []
    for path in sorted(SITE.rglob("*.html")):
        text = path.read_text(encoding="utf-8")
        for tag in re.findall(r"<(?:script|img|link|iframe|source)\b[^>]*>", text):
            if re.search(r"(?:src|srcset|href)=\"?(?:https?:)?//", tag) and "canonical" not in tag:
                problems.append(f"{path.relative_to(ROOT)}: {tag}")
    return problems


def unreachable() -> list[str]:
    """Return a line for each link to another host that does not answer."""
    problems = []
    for url in sorted({link for _, link, target, _ in links() if target is None}):
        if not url.startswith("http"):
            continue
        request = urllib.request.Request(url, headers={"User-Agent": "Mozilla/5.0"})
        try:
            urllib.request.urlopen(request, timeout=20).close()
        except (urllib.error.URLError, TimeoutError) as error:
            problems.append(f"{url}: {error}")
    return problems


def main() -> None:
    """Print what is wrong; exit with 1 if anything is."""
    problems = broken_links() + loaded_from_elsewhere()
    if "--external" in sys.argv[1:]:
        problems += unreachable()
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"links: {len(list(links())):,} checked, {len(problems)} broken")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
