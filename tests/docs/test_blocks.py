"""Every block of code in the documentation runs, or says why not.

A block is run in the order of its page, in a folder that has what the page speaks of. One that is
not run has `<!-- not run: REASON -->` before it; its commands are parsed, and its files and extras
must exist. Comments of a literal behind an expression, `f(x)  # (2, 128)`, are its value.
"""

import ast

import duckdb
import pytest

from satmip_jax.errors import SatmipError
from tests.conftest import REPOSITORY
from tests.docs import blocks as blocks_module
from tests.docs import command_lines, sandbox
from tests.docs.blocks import SHOWN, Block, pages, read_blocks

SLOW = ("README.md", "docs/tutorial.md", "docs/inference.md", "docs/howto/stac.md")


def run_python(block: Block, names: dict[str, object]) -> None:
    """Run a block, and compare the values that its comments state."""
    lines = block.text.splitlines()
    for node in ast.parse(block.text).body:
        if not isinstance(node, ast.Expr):
            exec(compile(ast.Module([node], []), f"{block.page}:{block.line}", "exec"), names)
            continue
        code = ast.get_source_segment(block.text, node) or ""
        value = eval(code, names)
        _, _, comment = lines[node.end_lineno - 1].partition("  # ")
        try:
            stated = ast.literal_eval(comment.split(";")[0])
        except (SyntaxError, ValueError):
            continue
        assert value == stated, f"{block.page}: {code} is {value!r}, not {stated!r}"


def run(block: Block, names: dict[str, object]) -> None:
    if block.language == "python":
        run_python(block, names)
    elif block.language == "sql":
        assert duckdb.sql(block.text.replace(";", "")).fetchall()
    else:
        for line in block.commands():
            command_lines.run(line)


def marked(page: str) -> object:
    return pytest.param(page, marks=[pytest.mark.slow] if page in SLOW else [])


def runnable(page: str) -> list[Block]:
    blocks = read_blocks(REPOSITORY / page)
    return [block for block in blocks if block.language not in SHOWN and not block.not_run]


RUN = [page for page in pages() if runnable(page)]


@pytest.mark.parametrize("page", [marked(page) for page in RUN])
def test_blocks_run(page, tmp_path, monkeypatch, tiny_shards_dir, no_type_checks):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    blocks = runnable(page)
    sandbox.fill(tmp_path, tiny_shards_dir, "\n".join(block.text for block in blocks))
    names: dict[str, object] = {"__name__": "page"}
    for block in blocks:
        try:
            run(block, names)
        except Exception as error:
            error.add_note(f"in the block at {page}:{block.line}")
            raise


@pytest.mark.parametrize("page", pages())
def test_blocks_that_are_not_run_could_be(page):
    """They say why not; their commands are accepted, and their Python compiles."""
    for block in read_blocks(REPOSITORY / page):
        where = f"{page}:{block.line}"
        assert block.language in ("python", "bash", "sql", *SHOWN), f"{where}: {block.language}"
        if block.language == "python":
            compile(block.text, where, "exec")
        elif block.language == "bash":
            assert block.commands(), where
            for line in block.commands():
                command_lines.check(line)


PAGE = """<!-- not run: costs money -->
```bash
satmip train
```

```bash
satmip report a \\
    b  # a comment
```

    satmip embed c

- An item:

  ```python
  1 + 1  # 2
  ```

<!-- not run: of the next block alone -->
Words.

```sql
SELECT 1
```

```
import os
```

```
output
```

<!-- not run from here: needs a cluster -->
```bash
sbatch x
```

```text
output
```

```python
2
```
"""


def test_no_block_is_skipped_silently(tmp_path, monkeypatch):
    (tmp_path / "page.md").write_text(PAGE)
    monkeypatch.setattr(blocks_module, "REPOSITORY", tmp_path)
    blocks = read_blocks(tmp_path / "page.md")
    assert [(b.line, b.language, b.not_run) for b in blocks] == [
        (2, "bash", "costs money"),
        (6, "bash", ""),
        (11, "bash", ""),
        (15, "python", ""),
        (22, "sql", ""),
        (26, "python", ""),
        (30, "", ""),
        (35, "bash", "needs a cluster"),
        (39, "text", "needs a cluster"),
        (43, "python", "needs a cluster"),
    ]
    assert blocks[1].commands() == ["satmip report a b"]
    assert blocks[3].text == "1 + 1  # 2\n"


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("python", "x = 1\nx + 1  # 3"),
        ("python", "f = dict\nf(\n    a=1,\n)  # {'a': 2}; of two"),
        ("python", "assert False"),
        ("sql", "SELECT 1 WHERE 1 = 2;"),
        ("bash", "satmip evaluate --no-such-option"),
        ("bash", "rm -r data"),
    ],
)
def test_a_wrong_block_fails(language, text):
    with pytest.raises((AssertionError, SystemExit)):
        run(Block("page.md", 1, language, text, ""), {})


@pytest.mark.parametrize(
    "line",
    [
        "satmip evaluat --workdir a",
        "satmip evaluate --no-such-option",
        "A=1 satmip train --config.optimizer.no_such=1",
        "bash launch/no_such.sh",
        "python -m satmip_jax.no_such",
        'pip install "satmip-jax[no_such]"',
    ],
)
def test_a_wrong_command_is_not_accepted(line):
    with pytest.raises((AssertionError, SatmipError)):
        command_lines.check(line)
