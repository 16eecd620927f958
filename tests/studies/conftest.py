"""Toy studies, and fixtures that make their runs quick."""

import io
from functools import partial

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache
from rich.console import Console

from satmip_jax.studies import scoring
from satmip_jax.studies.registry import STUDIES
from tests.conftest import use_one_device


@pytest.fixture(autouse=True)
def _toy_studies(monkeypatch):
    """Register the toy studies, and score with the quickest protocol."""
    for name in ("batches", "other"):
        monkeypatch.setitem(STUDIES, name, f"tests.studies.toy:{name.upper()}")
    for name in ("evaluate", "evaluate_baseline"):
        quick = partial(getattr(scoring, name), protocols=["knn5"], block=0)
        monkeypatch.setattr(scoring, name, quick)


@pytest.fixture
def compiled_once(tmp_path):
    """Compile each program once, with the persistent cache."""
    changes = {
        "jax_compilation_cache_dir": str(tmp_path / "cache"),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": 0,
    }
    before = {name: getattr(jax.config, name) for name in changes}
    for values in (changes, before):
        for name, value in values.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()
        if values is changes:
            yield


@pytest.fixture
def one_device(monkeypatch):
    """Compile for one device, which is quicker than for eight."""
    use_one_device(monkeypatch)


@pytest.fixture
def quiet():
    return Console(file=io.StringIO(), width=200, record=True)
