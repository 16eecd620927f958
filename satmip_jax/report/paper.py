"""The section of the paper's comparison: its claims with verdicts, its tables and figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from satmip_jax.report.figures import Picture, data_uri
from satmip_jax.report.files import as_text, read_object, read_text
from satmip_jax.report.hardware import hardware, versions
from satmip_jax.report.section import Part, Section
from satmip_jax.runtime.paths import AnyPath

PAPER_FILE = "paper.json"
CLAIM = ("claim", "verdict", "ours", "published", "note")


@dataclass(frozen=True)
class PaperTable:
    """A table of the paper with its figure.

    Attributes:
        head: headings after the first column.
        lines: the cells of each line, as text.
        note: below the table.
        figure: the figure; None if there is none.
    """

    head: list[str]
    lines: list[list[str]]
    note: str
    figure: Picture | None


def read_paper(folder: AnyPath) -> Section:
    """Read the section of a comparison.

    Args:
        folder: of `satmip study paper`.

    Raises:
        ReportError: a file that cannot be read; the message names it.
    """
    facts = read_object(folder / PAPER_FILE)
    claims = [
        [as_text(entry.get(name)) for name in CLAIM] for entry in _objects(facts.get("claims"))
    ]
    parts = [Part("Claims", "claims", (claims, as_text(facts.get("note"))))]
    for entry in _objects(facts.get("tables")):
        title = as_text(entry.get("title"))
        parts.append(Part(title, "paper_table", _table(folder, entry, title)))
    return Section(
        title="The paper's comparison",
        lead="What Bourcier et al. (ECCV 2024) report, measured here. Their numbers, of fMoW-RGB "
        "and their recipe, stand in brackets.",
        facts=_facts(facts),
        parts=parts,
    )


def _table(folder: AnyPath, entry: Mapping[str, Any], title: str) -> PaperTable:
    name = as_text(entry.get("name"))
    figure = None
    # a name from the file, which may be untrusted: no path
    if name.isalpha() and (path := folder / "figures" / f"{name}.svg").is_file():
        svg = read_text(path).encode("utf-8")
        figure = Picture(data_uri(svg, "image/svg+xml"), f"figure: {title}")
    return PaperTable(
        _texts(entry.get("head")),
        [_texts(line) for line in _list(entry.get("lines"))],
        as_text(entry.get("note")),
        figure,
    )


def _facts(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    machines = _objects(facts.get("machines"))
    rows = [
        ("trained on", as_text(facts.get("trained_on"))),
        ("transfer sets", ", ".join(_texts(facts.get("transfer"))) or "none"),
        ("score", as_text(facts.get("score"))),
        ("seeds", ", ".join(_texts(facts.get("seeds")))),
    ]
    for name, describe in (("hardware", hardware), ("versions", versions)):
        rows.append((name, "; ".join(dict.fromkeys(filter(None, map(describe, machines))))))
    return [(name, value) for name, value in rows if value]


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _texts(value: object) -> list[str]:
    return [as_text(entry) for entry in _list(value)]


def _objects(value: object) -> list[dict[str, Any]]:
    return [entry for entry in _list(value) if isinstance(entry, dict)]
