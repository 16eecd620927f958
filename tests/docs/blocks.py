"""Blocks of code in the documentation, and what they say about being run."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

from tests.conftest import REPOSITORY

# before a block; with "from here", before all blocks that follow on the page
_NOT_RUN = re.compile(r"<!-- not run( from here)?: (.+?) -->", re.DOTALL)
# Shows the output of a program, a formula or a diagram: nothing that runs.
SHOWN = ("", "text", "json")


@dataclass(frozen=True)
class Block:
    """A block of code.

    Attributes:
        page: file, below the repository.
        line: of its first line, from 1.
        language: "python", "bash", "sql", or one of `SHOWN`.
        text: the code.
        not_run: why it is not run; "" if it is.
    """

    page: str
    line: int
    language: str
    text: str
    not_run: str

    def commands(self) -> list[str]:
        """The command lines of a shell block, without comments and prompts."""
        joined = re.sub(r"\\\n\s*", "", self.text)
        lines = (re.sub(r"(^|\s)#\s.*$", "", line).strip() for line in joined.splitlines())
        return [line for line in lines if line]


def pages() -> list[str]:
    """Every page with blocks: those of the site, README and CONTRIBUTING."""
    files = [*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")]
    return sorted(str(file.relative_to(REPOSITORY)) for file in files if read_blocks(file))


def read_blocks(path: Path) -> list[Block]:
    """Return the blocks of a page, in their order.

    A block without a language is one of commands if its first line is a command.
    """
    page = str(path.resolve().relative_to(REPOSITORY))
    blocks: list[Block] = []
    reason, from_here = "", ""
    for token in MarkdownIt("commonmark").enable("table").parse(path.read_text()):
        if token.type == "html_block":
            reason = ""
            for match in _NOT_RUN.finditer(token.content):
                if match[1]:
                    from_here = match[2]
                else:
                    reason = match[2]
        elif token.type in ("fence", "code_block"):
            language = token.info.split()[0] if token.info else ""
            if not language and re.match(
                r"satmip |python -m |bash |export |taskset |[A-Z_]+=", token.content
            ):
                language = "bash"
            elif not language and re.match(r"import |from ", token.content):
                language = "python"
            line = token.map[0] + 1 if token.map else 0
            blocks.append(Block(page, line, language, token.content, reason or from_here))
            reason = ""
        elif token.type.endswith("_open"):
            reason = ""
    return blocks
