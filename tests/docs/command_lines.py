"""Command lines of the documentation: whether they would be accepted, and running them."""

from __future__ import annotations

import glob
import importlib.util
import itertools
import re
import shlex
import tomllib

import click
from click.testing import CliRunner

from satmip_jax.cli import cli
from satmip_jax.config.loading import find_config, load_config
from tests.conftest import REPOSITORY

EXTRAS = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"][
    "optional-dependencies"
]


def check(line: str) -> None:
    """Assert that a command line names what exists, without running it.

    Programs of others are not looked at, but what they pass on to `satmip` is.
    """
    for extras in re.findall(r"(?:\.|satmip-jax)\[([\w,-]+)\]", line):
        assert set(extras.split(",")) <= EXTRAS.keys(), f"no such extra: {line}"
    for module in re.findall(r"python -m ((?:satmip_jax|tests)[\w.]*)", line):
        assert importlib.util.find_spec(module), line
    for script in re.findall(r"\b((?:launch|configs)/[\w.-]+)", line):
        assert (REPOSITORY / script).is_file(), f"no file {script}: {line}"
    words = _words(line)
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):  # variables
        words = words[1:]
    if words and words[0] == "satmip":
        _check_arguments(words[1:], line)
    elif re.search(r"launch/(slurm\.sbatch|tpu_pod\.sh) --", line):
        start = next(i for i, word in enumerate(words) if word.startswith("launch/"))
        _check_arguments(["train", *words[start + 1 :]], line)


def run(line: str) -> None:
    """Run a `satmip` command in this process; patterns of files are expanded."""
    words = _words(line)
    assert words[0] == "satmip", f"only satmip is run: {line}"
    expanded: list[str] = []
    for word in words[1:]:
        found = sorted(glob.glob(word)) if re.search(r"[*?]", word) and "=" not in word else []
        expanded += found or [word]
    result = CliRunner().invoke(cli, expanded)
    assert result.exit_code == 0, f"{line}\n{result.output}\n{result.exception!r}"


def _words(line: str) -> list[str]:
    # brackets are optional arguments, "..." stands for others
    text = re.sub(r"\[(--[^\]]*)\]", r"\1", line) if not line.startswith("pip") else line
    return [word for word in shlex.split(text) if word not in ("...", "&")]


def _check_arguments(words: list[str], line: str) -> None:
    """Let click parse the arguments; files need not exist."""
    command: click.Command = cli
    context: click.Context | None = None
    while isinstance(command, click.Group):
        context = click.Context(command, parent=context, info_name=command.name)
        if words[0].startswith("-"):  # an option of the group
            assert words[0].split("=")[0] in {
                o for p in command.get_params(context) for o in p.opts
            }
            words = words[1:] if words[0] in ("--version", "--help") else words[2:]
            if not words:
                return
        command, words = command.get_command(context, words[0]), words[1:]
        assert command is not None, f"no such command: {line}"
    elsewhere = re.compile(r"does not exist|is a file|is a URL")
    overrides = [word for word in words if word.startswith("--config.")]
    try:
        context = command.make_context(command.name, [*words], parent=context)
        overrides = list(context.params.get("overrides", overrides))
    except click.UsageError as error:
        # files that are not here; and what "..." stands for
        missing = "..." in line and isinstance(error, click.MissingParameter)
        text = error.format_message()
        assert missing or elsewhere.search(text), f"{line}: {text}"
    config = next((b for a, b in itertools.pairwise(words) if a == "--config"), "own")
    file = config.partition(":")[0]
    spec = config if find_config(file) else "own"
    load_config(re.sub("METHOD|two_views", "satmips", spec), [o for o in overrides if "$" not in o])
