"""Every `>>>` example of the package runs.

Examples import what they use. At hand are `np`, `jax`, `jnp` and `Path`; `shards`, a folder of
prepared synthetic scenes with the splits train and val; `config`, of a tiny SatMIPS on it;
`workdir`, a finished run of it; and `embeddings_file`, its embeddings of the split val. The working
folder is a new, empty one.
"""

import doctest
import importlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.conftest import REPOSITORY

PACKAGE = REPOSITORY / "satmip_jax"
SLOW = ("satmip_jax.checkpoints.manager", "satmip_jax.losses.contrastive")
FIXTURES = {
    "shards": "tiny_shards_dir",
    "config": "tiny_config",
    "workdir": "tiny_run",
    "embeddings_file": "tiny_embeddings",
}


def modules() -> list[Any]:
    """Names of the modules with examples; those that compile much are slow."""
    files = sorted(path for path in PACKAGE.rglob("*.py") if ">>>" in path.read_text())
    paths = (".".join(path.relative_to(REPOSITORY).with_suffix("").parts) for path in files)
    names = [path.removesuffix(".__init__") for path in paths]
    marks = {True: [pytest.mark.slow], False: []}
    return [pytest.param(name, marks=marks[name in SLOW]) for name in names]


@pytest.mark.parametrize("name", modules())
def test_examples(name, request, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    ran = 0
    for test in doctest.DocTestFinder().find(module, name):
        text = "".join(example.source for example in test.examples)
        at_hand = {"np": np, "jax": jax, "jnp": jnp, "Path": Path}
        for variable, fixture in FIXTURES.items():
            if variable in text:
                value = request.getfixturevalue(fixture)
                at_hand[variable] = value() if variable == "config" else value
        test.globs = {**at_hand, "__name__": name}
        report: list[str] = []
        result = runner.run(test, out=report.append)
        assert not result.failed, "".join(report)
        ran += result.attempted
    assert ran, f"{name} has >>> in it, but no example that runs"
